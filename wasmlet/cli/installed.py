"""A group whose commands are imported when they are used: its own, and those of other distributions.

Other distributions announce theirs in the entry-point group `wasmlet.commands`. An entry point names a click command,
or what makes one when it is called without arguments. One that cannot be imported says so when it is used, and leaves
the others alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from wasmlet.cli.execution import need_linux
from wasmlet.errors import ConfigError
from wasmlet.names import did_you_mean

GROUP = "wasmlet.commands"
ELSEWHERE = {
    "host": ("wasmlet-remote", "Be the node loop of many agents."),
    "wascc": ("wasmlet-wascc", "Make keys, and sign actors."),
}
"""The commands that this project publishes in a distribution of their own: which one, and what is said of them."""


ON_LINUX = ("demo", "doctor", "host", "run")
"""The commands that make nodes."""


class Commands(click.Group):
    """A group with the commands that are installed beside its own, which come first.

    Args:
        own: for each command of its own the object that is one or makes one, as MODULE:NAME, and what the list of
            commands says of it, in a line.
    """

    def __init__(self, *args: Any, own: Mapping[str, tuple[str, str]], **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._own = {name: EntryPoint(name, where, GROUP) for name, (where, _) in own.items()}
        self._said = {name: said for name, (_, said) in (ELSEWHERE | dict(own)).items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self._own, *_points()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None.

        Raises:
            ConfigError: it is in a distribution that is not installed, or not for this system.
        """
        if cmd_name in ON_LINUX and not ctx.resilient_parsing:
            need_linux()
        if cmd_name not in self.commands:
            if cmd_name in self._own:
                self.add_command(_command(self._own[cmd_name]), cmd_name)
            elif (point := _points().get(cmd_name)) is not None:
                return _loaded(point)
            elif cmd_name in ELSEWHERE:
                distribution, _ = ELSEWHERE[cmd_name]
                raise ConfigError(
                    f"`wasmlet {cmd_name}` is a command of {distribution}; try: pip install {distribution}"
                )
        return self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; of a word that is no command, say which command may be meant."""
        word = args[0]
        if not ctx.resilient_parsing and word[:1].isalnum() and self.get_command(ctx, word) is None:
            ctx.fail(f"No such command {word!r}{did_you_mean(word, self.list_commands(ctx)) or '.'}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, each with a whole sentence. A command whose sentence is known is not imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.about(ctx, name)) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [
            CompletionItem(name, help=self.about(ctx, name))
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def about(self, ctx: click.Context, name: str) -> str:
        """What the list of commands says of one."""
        if name in self._said:
            return self._said[name]
        command = self.get_command(ctx, name)
        return command.get_short_help_str(1000) if command is not None else ""


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _command(point: EntryPoint) -> click.Command:
    """The click command that an entry point names or makes.

    Raises:
        TypeError: it names something else.
    """
    found = point.load()
    if not isinstance(found, click.Command):
        found = found()
    if not isinstance(found, click.Command):
        raise TypeError(f"its entry point names {point.value}, which gives no click command")
    return found


def _loaded(point: EntryPoint) -> click.Command:
    """The command, or one that says why it cannot be used."""
    try:
        return _command(point)
    except Exception as error:
        whose = f" of {point.dist.name}" if point.dist is not None else ""
        return _Broken(
            point.name, f"command {point.name!r}{whose} cannot be used here: {error or type(error).__name__}"
        )


class _Broken(click.Command):
    """A command that cannot be imported."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, help=why, add_help_option=False)
        self._why = why

    def parse_args(self, ctx: click.Context, args: list[str]) -> NoReturn:
        raise ConfigError(self._why)

    def invoke(self, ctx: click.Context) -> Any:
        raise ConfigError(self._why)
