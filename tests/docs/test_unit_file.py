"""examples/wasmlet.service: pods outlive the unit, and the node may make control groups below it."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

from click.testing import CliRunner

from wasmlet.cli.commands import cli

UNIT = Path(__file__).parents[2] / "examples/wasmlet.service"


def read() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text())
    return parser


def test_what_pods_need_of_the_unit() -> None:
    service = read()["Service"]
    assert service["KillMode"] == "process"
    assert service["Delegate"] == "yes"
    assert service["DelegateSubgroup"] == "node"
    assert service["TasksMax"] == service["LimitNOFILE"] == "infinity"
    assert service["StateDirectoryMode"] == "0700"


def test_its_options_exist() -> None:
    program, *words = shlex.split(read()["Service"]["ExecStart"])
    assert Path(program).name == "wasmlet-wasmtime"
    known = CliRunner().invoke(cli, ["run", "--help"]).output
    options = [word for word in words if word.startswith("--")]
    assert options == ["--kubeconfig", "--state-dir"]
    assert all(f"  {option} " in known for option in options)
    text = UNIT.read_text()
    assert "--drain-on-exit" in text
    assert "--drain-on-exit" in known
