"""Flags, variables and TOML keys that follow from an attrs class, and what a user hears who gets one wrong."""

from __future__ import annotations

import importlib.abc
import sys
from pathlib import Path

import attrs
import click
import pytest
from click.testing import CliRunner, Result

import wasmlet.cli
from wasmlet.cli.commands import cli
from wasmlet.cli.options import common, instance_of, options_of, warn_of_variables
from wasmlet.errors import ConfigError
from wasmlet.node import NodeConfig
from wasmlet.options import option


@attrs.frozen
class Settings:
    name: str = option("someone", help="Who.")
    max_things: int = option(3, help="How many.")
    where: Path | None = option(None, help="Where.")
    tags: tuple[str, ...] = option((), help="What for.")
    brave: bool = option(False, help="Whether.")
    ratio: float = option(0.5, help="How much.")


def run(*args: str, env: dict[str, str] | None = None) -> Result:
    made: list[Settings] = []
    command = click.Command(
        "x",
        params=[*common(), *options_of(Settings)],
        callback=lambda **values: made.append(instance_of(Settings, values)),
    )
    result = CliRunner().invoke(command, args, env=env)
    result.made = made[0] if made else None  # type: ignore[attr-defined]
    return result


def made(*args: str, env: dict[str, str] | None = None) -> Settings:
    result = run(*args, env=env)
    assert result.exit_code == 0, result.output
    return result.made  # type: ignore[attr-defined, no-any-return]


def test_defaults() -> None:
    assert made() == Settings()


def test_flags() -> None:
    settings = made("--name", "a", "--max-things=7", "--where", "/x", "--tags", "b", "--tags", "c", "--brave")
    assert settings == Settings("a", 7, Path("/x"), ("b", "c"), True)


def test_a_flag_goes_before_a_variable_and_that_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('name = "file"\nmax-things = 8\nbrave = true\ntags = ["t", "u"]\nratio = 0.25\n')
    env = {"WASMLET_NAME": "variable", "WASMLET_MAX_THINGS": "9"}
    assert made("--config", str(file)) == Settings("file", 8, None, ("t", "u"), True, 0.25)
    assert made("--config", str(file), env=env).max_things == 9
    assert made("--config", str(file), "--name", "flag", env=env).name == "flag"
    assert made("--config", str(file), "--no-brave").brave is False


def test_what_is_wrong_is_said() -> None:
    assert "'x' is not a valid integer" in run("--max-things", "x").output
    near = run("--max-thing", "3")
    assert near.exit_code == 2
    assert "--max-things" in near.output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name =", "not TOML"),
        ("nome = 1", "there is no option 'nome'; did you mean 'name'"),
        ("zzz = 1", "there are: "),
        ('config = "other.toml"', "there is no option 'config'"),
        ("max-things = 1e400", "max-things: expected a whole number, found inf"),
        ("max-things = true", "max-things: expected a whole number, found True"),
        ('max-things = "x"', "max-things: expected a whole number, found 'x'"),
        ("ratio = nan", "ratio: expected a number, found nan"),
        ("brave = 1", "brave: expected true or false, found 1"),
        ("where = 1", "where: expected text in quotes, found 1"),
        ('tags = "t"', "tags: expected a list, found 't'"),
        ("tags = [1]", "tags: expected a list, each text in quotes, found [1]"),
        ("name = []", "name: expected text in quotes, found []"),
    ],
)
def test_a_wrong_file_is_said(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    error = run("--config", str(file)).exception
    assert isinstance(error, ConfigError)
    assert expected in str(error)


def test_a_misspelt_variable_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    of_services = (
        "WASMLET_SERVICE_HOST",
        "WASMLET_HOST_SERVICE_HOST",
        "WASMLET_HOST_SERVICE_PORT_HTTPS",
        "WASMLET_HOST_PORT",
        "WASMLET_PORT_10250_TCP",
        "WASMLET_HOST_PORT_443_TCP_ADDR",
    )
    for name in ("WASMLET_MAX_THING", "WASMLET_NAME", *of_services):
        monkeypatch.setenv(name, "1")
    warn_of_variables(options_of(Settings))
    assert capsys.readouterr().err == (
        "Warning: no option reads WASMLET_MAX_THING; did you mean 'WASMLET_MAX_THINGS'?\n"
    )


def test_a_service_named_like_us_sets_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes sets WASMLET_PORT in each pod of a namespace that has a Service `wasmlet`."""
    monkeypatch.setenv("WASMLET_PORT", "tcp://10.96.0.17:443")
    command = click.Command("x", params=options_of(NodeConfig), callback=lambda port, **_: click.echo(port))
    assert CliRunner().invoke(command, []).output == "10250\n"
    monkeypatch.setenv("WASMLET_PORT", "10251")
    assert CliRunner().invoke(command, []).output == "10251\n"


def test_without_a_provider_a_right_option_of_one_is_not_called_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WASMLET_PROVIDER", raising=False)
    monkeypatch.setattr("wasmlet.cli.providers.installed", lambda: {"one": None, "other": None})
    error = CliRunner().invoke(cli, ["run", "--allow-something"]).exception
    assert isinstance(error, ConfigError)
    assert str(error) == "which provider? Give --provider NAME (installed: one, other)"
    assert "--max-pods" in CliRunner().invoke(cli, ["run", "--help"]).output


def test_help_explains_each_option_and_its_variable() -> None:
    text = CliRunner().invoke(click.Command("x", params=options_of(NodeConfig)), ["--help"]).output
    for field in attrs.fields(NodeConfig):
        assert "--" + field.name.replace("_", "-") in text
        assert f"WASMLET_{field.name.upper()}" in text.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"node_name": "Not A Name"}, "--node-name"),
        ({"node_name": ""}, "--node-name"),
        ({"port": 70000}, "0 to 65535"),
        ({"max_pods": 0}, "at least 1"),
        ({"drain_seconds": float("nan")}, "drain seconds: expected at least 0, found nan; set it with --drain-seconds"),
        ({"drain_seconds": float("inf")}, "found inf"),
        ({"node_ip": "999.1.1.1"}, "expected an IP address, found '999.1.1.1'; set it with --node-ip"),
        ({"node_labels": ("kubernetes.io/arch=amd64",)}, "kubernetes.io/arch: what this node is cannot be changed"),
        ({"node_labels": ("x",)}, "expected KEY=VALUE, found 'x'"),
        ({"register_with_taints": ("x=y",)}, "KEY=VALUE:EFFECT"),
    ],
)
def test_a_node_config_that_cannot_be(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        NodeConfig(**settings)  # type: ignore[arg-type]


def test_the_state_directory_is_its_owners_alone(tmp_path: Path) -> None:
    path = NodeConfig(state_dir=tmp_path / "a" / "b").directory()
    assert path.stat().st_mode & 0o777 == 0o700
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(ConfigError, match="nobody else may write"):
        NodeConfig(state_dir=open_to_all).directory()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match="--state-dir"):
        NodeConfig(state_dir=file / "below").directory()
    with pytest.raises(ConfigError, match="it is a file; choose another with --state-dir"):
        NodeConfig(state_dir=file).directory()


def test_an_interrupt_while_it_loads_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(importlib.abc.MetaPathFinder):
        def find_spec(self, fullname: str, path: object, target: object = None) -> None:
            if fullname in ("wasmlet.cli.commands", "wasmlet.cli.run"):
                raise KeyboardInterrupt

    for name in ("wasmlet.cli.commands", "wasmlet.cli.run"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    for start in (lambda: wasmlet.cli.main([]), lambda: wasmlet.cli.main_for("wasmtime", [])):
        with pytest.raises(SystemExit) as ended:
            start()
        assert ended.value.code == 130


@attrs.frozen
class Needed:
    lamp: str = option(help="Which lamp.")


@pytest.mark.parametrize("command", ["doctor", "host", "operator", "run"])
def test_the_example_of_a_file_is_one_for_each_command(command: str, tmp_path: Path) -> None:
    shown = " ".join(CliRunner().invoke(cli, [command, "--help"]).output.split())
    example = shown.partition("TOML file with options, as ")[2].partition(". [env var")[0]
    (tmp_path / "config.toml").write_text(example)
    kubeconfig = ["--kubeconfig", "/nowhere"] + (["--provider", "wasmtime"] if command == "run" else [])
    done = CliRunner().invoke(cli, [command, "--config", f"{tmp_path}/config.toml", *kubeconfig])
    assert "kubeconfig /nowhere: there is no such file" in f"{done.output}{done.exception}"


def test_an_option_that_has_to_be_given_is_asked_for_by_name() -> None:
    command = click.Command("x", params=options_of(Needed), callback=lambda **values: instance_of(Needed, values))
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 2
    assert "Missing option '--lamp'" in result.output
    assert CliRunner().invoke(command, ["--lamp", "red"]).exit_code == 0
