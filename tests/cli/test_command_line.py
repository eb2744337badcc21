"""The help of every command, and what is said of options that cannot be, as a user meets it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.cli.demo.harness import OWN, wasmlet
from wasmlet.cli.commands import cli
from wasmlet.cli.installed import Commands


@pytest.mark.parametrize(
    ("arguments", "expected", "status"),
    [
        (
            ["run", "--provider", "wasmtime", "--kubeconfig", "/nowhere"],
            "kubeconfig /nowhere: there is no such file",
            1,
        ),
        (["run", "--provider", "nothing"], "there is no provider 'nothing'", 2),
        (
            ["run", "--provider", "wasmtime", "--kubeconfig", "/etc/hostname"],
            "kubeconfig /etc/hostname cannot be used",
            1,
        ),
        (["run", "--max-pod", "3"], "--max-pods", 2),
        (["run", "--provider", "wasmtime", "--node-name", "A_B"], "--node-name", 2),
        (["run", "--provider", "wasmtime", "--node-name", "a" * 64], "expected at most 63", 2),
        (["operator", "--namespace", "A B"], "set it with --namespace", 2),
        (["host", "rbac", "a" * 64], "expected the name of a node", 1),
        (["run", "--provider", "wasmtime", "--port", "99999"], "found 99999; set it with --port", 2),
        (["run", "--provider", "wasmtime", "--network", "foo"], "--network", 2),
        (["doctor", "--node-labels", "a b=c"], "found 'a b=c'; set it with --node-labels", 2),
        (["doctor", "--register-with-taints", "foo"], "--register-with-taints", 2),
        (["runn"], "runn", 2),
        (["run", "--config", "/nowhere.toml"], "--config /nowhere.toml", 1),
    ],
)
async def test_what_is_wrong_on_the_command_line_is_said(
    arguments: list[str], expected: str, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(OWN, "WASMLET_STATE_DIR", str(tmp_path / "state"))  # the usual one is another test's, maybe
    async with wasmlet(*arguments) as process:
        code, output = await process.end()
    assert code == status, output
    assert expected in output
    assert "Traceback" not in output


async def test_help_of_every_command() -> None:
    for arguments in ([], ["run"], ["demo"], ["providers"]):
        async with wasmlet(*arguments, "--help") as process:
            code, output = await process.end()
        assert code == 0
        assert output.startswith("Usage: wasmlet")
    assert "--allow-local-modules" in await _help_of_run()


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command, str]]:
    """Every command, those of other distributions among them, and what the list of its group says of it."""
    context = click.Context(group, info_name="wasmlet")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        said = group.about(context, name) if isinstance(group, Commands) else command.get_short_help_str(1000)
        yield (*path, name), command, said
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


def test_every_command_says_what_it_does_in_a_sentence_that_fits() -> None:
    """What its list says is whole, in a line of a terminal of 100 characters; its help begins with a sentence."""
    found = list(_commands(cli))
    assert {("demo",), ("new", "provider"), ("run",), ("wascc", "sign")} <= {path for path, _, _ in found}
    for path, command, said in found:
        where = " ".join(path)
        assert re.fullmatch(r"[A-Z].*[^.]\.", said), (where, said)
        assert len(said) + len("  operator    ") <= 100, (where, said)
        first = " ".join((command.help or "").split("\n\n")[0].split())
        assert re.match(r"[A-Z].*?[^.]\.(\s|$)", first), (where, first)
        assert first.endswith((".", ":")), (where, first)


async def _help_of_run() -> str:
    async with wasmlet("run", "--provider", "wasmtime", "--help") as process:
        return (await process.end())[1]
