"""Commands of other distributions, which announce theirs in the entry-point group `wasmlet.commands`.

An entry point names a click command, or what makes one when it is called without arguments. It is imported when it is
used or listed; one that cannot be imported says so when it is used, and leaves the others alone.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

import click

from wasmlet.errors import ConfigError

GROUP = "wasmlet.commands"
ELSEWHERE = {"host": "wasmlet-remote", "wascc": "wasmlet-wascc"}
"""The commands that this project publishes in a distribution of their own, by name."""


class Commands(click.Group):
    """A group with the commands that are installed beside its own, which come first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_points()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None.

        Raises:
            ConfigError: it is in a distribution that is not installed.
        """
        if (found := super().get_command(ctx, cmd_name)) is not None:
            return found
        if (point := _points().get(cmd_name)) is not None:
            return _loaded(point)
        if cmd_name in ELSEWHERE:
            distribution = ELSEWHERE[cmd_name]
            raise ConfigError(f"`wasmlet {cmd_name}` is a command of {distribution}; try: pip install {distribution}")
        return None


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _loaded(point: EntryPoint) -> click.Command:
    """The command, or one that says why it cannot be used."""
    try:
        found = point.load()
        if not isinstance(found, click.Command):
            found = found()
        if not isinstance(found, click.Command):
            raise TypeError(f"its entry point names {point.value}, which gives no click command")
    except Exception as error:
        whose = f" of {point.dist.name}" if point.dist is not None else ""
        return _Broken(
            point.name, f"command {point.name!r}{whose} cannot be used here: {error or type(error).__name__}"
        )
    return found


class _Broken(click.Command):
    """A command that cannot be imported."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, help=why, add_help_option=False)
        self._why = why

    def parse_args(self, ctx: click.Context, args: list[str]) -> NoReturn:
        raise ConfigError(self._why)

    def invoke(self, ctx: click.Context) -> Any:
        raise ConfigError(self._why)
