"""`wasmlet doctor`: says before a node is started what would not work there, why, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

import wasmlet
from wasmlet.cli import diagnosis, providers, requests
from wasmlet.cli.diagnosis import Finding
from wasmlet.cli.execution import run_loop
from wasmlet.cli.options import common, instance_of, options_of, warn_of_variables
from wasmlet.clock import Clock, SystemClock
from wasmlet.errors import ConfigError, WasmletError
from wasmlet.kube import Client
from wasmlet.node import NodeConfig

_SIGNS = {"ok": "ok   ", "warns": "warn ", "fails": "FAILS"}


class Unwell(WasmletError):
    """Something would keep a pod from running, or its log from being read."""


class DoctorCommand(click.Command):
    """Its options are those of `wasmlet run`, so that the same line can be tried; those of the provider, too."""

    def __init__(self) -> None:
        chosen = providers.option("The provider whose pods are to run", default="wasmtime", show_default=True)
        super().__init__(
            "doctor",
            params=[chosen, *common(), *options_of(NodeConfig)],
            help="Say what would not work for a node on this machine, in this cluster, and what to do about it. "
            "Takes the options of `wasmlet run`, and changes nothing. The exit code is 1 where no pod would run.",
            callback=self._run,
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        self._provider = providers.load(providers.named(args) or "wasmtime")
        have = {parameter.name for parameter in self.params}
        self.params += [p for p in options_of(self._provider.Config) if p.name not in have]
        if not ctx.resilient_parsing:
            warn_of_variables(self.params)
        return super().parse_args(ctx, args)

    def _run(self, **values: Any) -> None:
        provider = self._provider(instance_of(self._provider.Config, values))
        run_loop(_examine(provider, instance_of(NodeConfig, values)))


async def _examine(provider: wasmlet.Provider, config: NodeConfig) -> None:
    clock = SystemClock()
    found = await diagnosis.machine(provider, config)
    _tell(found)
    try:
        identity, first = await requests.identity(config, clock)
    except ConfigError as error:
        cluster = [Finding("fails", "credentials", str(error))]
        _tell(cluster)
    else:
        async with Client(identity) as client:
            cluster = await (_of_bootstrap if first else _of_cluster)(client, config, clock)
    bad = [finding.what for finding in (*found, *cluster) if finding.level == "fails"]
    if bad:
        raise Unwell(f"a node would not work here; mend first what fails: {', '.join(bad)}")
    warnings = sum(finding.level == "warns" for finding in (*found, *cluster))
    with_some = f", with {warnings} warning{'' if warnings == 1 else 's'}: see above" if warnings else ""
    click.echo(f"a node would work here{with_some}")


async def _of_bootstrap(client: Client, config: NodeConfig, clock: Clock) -> list[Finding]:
    found = await requests.bootstrap(client, config, clock)
    _tell(found)
    return found


async def _of_cluster(client: Client, config: NodeConfig, clock: Clock) -> list[Finding]:
    found = await diagnosis.cluster(client, config, clock)
    _tell(found)
    if found[0].level == "fails":
        return found  # it cannot be reached
    for check in (diagnosis.classes, requests.of_node, diagnosis.reach):
        more = await check(client, config)
        _tell(more)
        found += more
    return found


def _tell(findings: Sequence[Finding]) -> None:
    for finding in findings:
        click.echo(f"{_SIGNS[finding.level]}  {finding.what}: {finding.said}")
        if finding.cure:
            click.echo(f"       {finding.cure}")
