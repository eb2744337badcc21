"""`wasmlet run`, and the command of a provider, which is `run` with the provider fixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import click

import wasmlet
from wasmlet.cli import log, providers
from wasmlet.cli.execution import execute, fail, run_loop
from wasmlet.cli.options import common, instance_of, options_of, warn_of_variables
from wasmlet.cli.version import version_option
from wasmlet.errors import WasmletError
from wasmlet.node import Node, NodeConfig
from wasmlet.node import run as run_node


class RunCommand(click.Command):
    """`run`: its options are the node's and those of the provider that the arguments name."""

    def __init__(self, fixed: str | None = None) -> None:
        chosen = [version_option()] if fixed else [providers.option("The provider that runs the pods")]
        super().__init__(
            "run",
            params=[*chosen, *common(), *options_of(NodeConfig)],
            help=f"Run a node against a cluster, with the {fixed} provider." if fixed else "Run a node.",
            callback=self._run,
        )
        self._provider: type[wasmlet.Provider] | None = None
        if fixed:
            self._take(fixed)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if self._provider is None and (name := providers.named(args)):
            self._take(name)
        if not ctx.resilient_parsing:  # which a shell does that asks what may come next
            warn_of_variables(self.params)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if self._provider is None and not error.possibilities:
                raise providers.which() from None  # whose option it may be
            raise

    def _take(self, name: str) -> None:
        self._provider = providers.load(name)
        have = {parameter.name for parameter in self.params}
        self.params += [p for p in options_of(self._provider.Config) if p.name not in have]

    def _run(self, **values: Any) -> None:
        if self._provider is None:
            raise providers.which()
        log.configure(values["log_level"])
        provider = self._provider(instance_of(self._provider.Config, values))
        node = Node(provider, instance_of(NodeConfig, values))
        run_loop(run_node(node))


def main_for(provider: str, args: Sequence[str] | None = None, more: str | None = None) -> NoReturn:
    """Entry point of a provider's own command: `wasmlet run` with the provider fixed.

    Args:
        args: what comes after the program's name; None takes those of this process.
        more: what `--help` says after the options.
    """
    try:
        command = RunCommand(provider)
    except WasmletError as error:
        fail(error)
    command.help = f"{command.help}\n\n{more}" if more else command.help
    execute(command, args, f"wasmlet-{provider}")
