"""Commands of other distributions: found by their entry points, and no harm where they are missing or broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement

from wasmlet.cli import installed, main

ROOT = Path(__file__).parents[2]


@click.command("good", help="Says hello.")
@click.argument("name")
def good(name: str) -> None:
    click.echo(f"hello {name}")


def made() -> click.Command:
    return good


def nothing() -> str:
    return "no command"


def run(args: Sequence[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(args)
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def points(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed."""
    here = [
        EntryPoint(name, f"{module}:{attribute}", installed.GROUP)
        for name, module, attribute in (
            ("good", __name__, "good"),
            ("made", __name__, "made"),
            ("gone", "no_such_module", "x"),
            ("odd", __name__, "nothing"),
            ("run", __name__, "good"),
        )
    ]
    monkeypatch.setattr(installed, "entry_points", lambda group: here)


@pytest.mark.parametrize("name", ["good", "made"])
def test_a_command_of_another_distribution_runs(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([name, "you"]) == 0
    assert capfd.readouterr().out == "hello you\n"


@pytest.mark.parametrize(
    ("name", "why"), [("gone", "No module named 'no_such_module'"), ("odd", "which gives no click command")]
)
@pytest.mark.parametrize("args", [[], ["--help"], ["x", "--flag"]])
def test_a_broken_one_says_so(name: str, why: str, args: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run([name, *args]) == 1
    error = capfd.readouterr().err
    assert error.startswith(f"Error: command {name!r} cannot be used here: ")
    assert why in error
    assert "Traceback" not in error


def test_a_broken_one_leaves_the_others_alone(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capfd.readouterr().out
    for line in ("good        Says hello.", "gone        command 'gone' cannot be used", "demo ", "providers "):
        assert line in shown
    assert run(["run", "--help"]) == 0  # what is here is never another's
    assert "hello" not in capfd.readouterr().out


def test_one_that_is_not_installed_says_where_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["host"]) == 1
    assert capfd.readouterr().err == (
        "Error: `wasmlet host` is a command of wasmlet-remote; try: pip install wasmlet-remote\n"
    )


def test_an_unknown_one_is_told_without_advice_to_install_anything(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["hots"]) == 2
    error = capfd.readouterr().err
    assert "No such command 'hots'" in error
    assert "pip install" not in error
    assert run(["inspct", "x"]) == 2
    assert "No such command 'inspct'; did you mean 'inspect'?" in capfd.readouterr().err


def test_what_is_said_to_be_elsewhere_is_a_distribution_of_ours() -> None:
    own = {Requirement(path.name).name for path in (ROOT / "providers").iterdir() if path.is_dir()}
    assert {name.removeprefix("wasmlet-") for name, _ in installed.ELSEWHERE.values()} <= own


def test_a_provider_and_an_engine_that_are_broken_leave_the_others_alone(tmp_path: Path) -> None:
    """By real commands, which find a distribution that has both."""
    about = tmp_path / "broken-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    points = "[wasmlet.providers]\naaa = broken:Mine\n[wasmlet.engines]\naaa = broken:Fails\n"
    (about / "entry_points.txt").write_text(points)
    (tmp_path / "broken.py").write_text(
        "from wasmlet import Provider\n"
        "from wasmlet.runtime import Engine\n"
        "class Mine(Provider):\n"
        "    name = 'aaa'\n"
        "    def __init__(self, config=None): raise KeyError('lamps')\n"
        "Mine.__abstractmethods__ = frozenset()\n"
        "class Fails(Engine):\n"
        "    name, handlers, links, examines, version, guest_module = 'aaa', {}, None, True, '1', None\n"
        "    def examine(self, wasm): raise KeyError('lamps')\n"
        "class Shows(Fails):\n"
        "    def examine(self, wasm): return len(wasm)\n"
        "    @classmethod\n"
        "    def shown(cls, facts): return {'bytes': str(facts)}\n"
    )
    (tmp_path / "one.wasm").write_bytes(b"\0asm\1\0\0\0")

    def said(*words: str) -> str:
        done = subprocess.run(
            [Path(sys.executable).with_name("wasmlet"), *words],
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=100,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    listed = said("providers")
    assert re.search(
        r"^aaa +1\.0  not ready: provider 'aaa' cannot be used here: KeyError: 'lamps'$", listed, re.MULTILINE
    )
    assert "\nwasmtime  " in listed
    assert "engine 'aaa' has failed: KeyError: 'lamps'" in said("inspect", str(tmp_path / "one.wasm"))
    (about / "entry_points.txt").write_text(f"{points}bbb = broken:Shows\n")
    shown = said("inspect", str(tmp_path / "one.wasm"))
    assert "bytes" in shown
    assert "has failed" not in shown
