"""The command line: `wasmlet-agent`, which serves, and `wasmlet-agent keys`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from wasmlet.cli import execution, log, providers
from wasmlet.cli.options import common, instance_of, options_of, warn_of_variables
from wasmlet.cli.version import version_option
from wasmlet.clock import SystemClock
from wasmlet.provider import Provider
from wasmlet_agent.config import AgentConfig
from wasmlet_agent.protocol.listening import PORT

_SERVE = "serve"


class ProviderCommand(click.Command):
    """A command whose options are the agent's, and those of the provider that the arguments name.

    Args:
        name: of the command.
        run: called with the values of all options, and with a function that makes a provider.
        settings: the attrs classes of the command's own options.
        about: what `--help` says of it.
    """

    def __init__(
        self, name: str, run: Callable[[dict[str, Any], Callable[[], Provider]], None], *settings: type[Any], about: str
    ) -> None:
        own = [option for kind in settings for option in options_of(kind)]
        chosen = providers.option("The provider that runs the pods")
        super().__init__(name, params=[chosen, *common(), *own], help=about, callback=self._run)
        self._do = run
        self._provider: type[Provider] | None = None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if name := providers.named(args, without="remote"):
            self._provider = providers.load(name)
            have = {parameter.name for parameter in self.params}
            self.params += [p for p in options_of(self._provider.Config) if p.name not in have]
        if not ctx.resilient_parsing:  # which a shell does that asks what may come next
            warn_of_variables(self.params)
        return super().parse_args(ctx, args)

    def _run(self, **values: Any) -> None:
        kind = self._provider
        if kind is None:
            raise providers.which()
        log.configure(values["log_level"])
        config = instance_of(kind.Config, values)
        self._do(values, lambda: kind(config))


class _Commands(click.Group):
    """Without the name of a command, `serve` is meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and ctx.resilient_parsing:  # a shell asks which commands there are
            return super().parse_args(ctx, args)
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help", "--version")):
            args = [_SERVE, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Commands, params=[version_option()])
def cli() -> None:
    """Run pods on this machine for a node loop that is elsewhere.

    Without a command, `serve` is meant: wasmlet-agent --provider wasmtime
    """


def _serve(values: dict[str, Any], make: Callable[[], Provider]) -> None:
    from wasmlet_agent.serving import serve

    execution.run_loop(serve(instance_of(AgentConfig, values), make))


def _join(values: dict[str, Any], make: Callable[[], Provider]) -> None:
    from wasmlet_agent.join.joining import JoinConfig
    from wasmlet_agent.serving import join

    if click.get_current_context().get_parameter_source("token") is ParameterSource.COMMANDLINE:
        click.echo(
            "Warning: --token shows the token to every user of this machine, in the list of processes; give it with "
            "--token-file FILE, with --token-file - on standard input, or in WASMLET_TOKEN",
            err=True,
        )
    execution.run_loop(join(instance_of(JoinConfig, values), values["host"], make))


def _join_command() -> click.Command:
    from wasmlet_agent.join.joining import JoinConfig

    about = "Serve the node loop of a host that this machine dials, as https://host.example:8443."
    command = ProviderCommand("join", _join, JoinConfig, about=about)
    command.short_help = "Serve the node loop of a host that is dialled."
    command.params.insert(0, click.Argument(["host"]))
    return command


cli.add_command(ProviderCommand(_SERVE, _serve, AgentConfig, about="Serve node loops at an address."))
cli.add_command(_join_command())


@cli.command("keys", short_help="Make keys for an agent and its node loop.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1)
@click.option("--port", type=click.IntRange(1, 65535), default=PORT, show_default=True, help="Where the agent serves.")
@click.option("--days", type=click.IntRange(1, 36500), default=3650, show_default=True, help="How long they last.")
def _keys(directory: Path, names: tuple[str, ...], port: int, days: int) -> None:
    """Make what an agent and its node loop show each other, and say how to use it.

    NAMES are the host names and addresses at which the node loop reaches this machine; without them, its own name.
    """
    from wasmlet_agent.keys import commands, make_keys

    reached = names or (socket.gethostname(),)
    make_keys(directory, reached, SystemClock().now() + timedelta(days=days))
    click.echo(commands(directory, reached[0], port))


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `wasmlet-agent`."""
    execution.execute(cli, args, "wasmlet-agent")
