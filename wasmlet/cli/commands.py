"""The commands: `run`, `demo`, `doctor`, `operator`, `providers`, `top`, and those of `artifacts`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

import wasmlet
from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.cli import artifacts, log, operator, providers
from wasmlet.cli.demo.manifests import is_module
from wasmlet.cli.doctor import DoctorCommand
from wasmlet.cli.execution import LEVELS, common, execute, fail, run_loop
from wasmlet.cli.installed import Commands
from wasmlet.cli.options import instance_of, options_of, warn_of_variables
from wasmlet.cli.top.command import top
from wasmlet.errors import ConfigError, WasmletError
from wasmlet.node import Node, NodeConfig
from wasmlet.node import run as run_node


class _RunCommand(click.Command):
    """`run`: its options are the node's and those of the provider that the arguments name."""

    def __init__(self, fixed: str | None = None) -> None:
        chosen = (
            []
            if fixed
            else [
                click.Option(
                    ["--provider"],
                    metavar="NAME",
                    envvar="WASMLET_PROVIDER",
                    show_envvar=True,
                    help="The provider that runs the pods; see `wasmlet providers`.",
                )
            ]
        )
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


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(wasmlet.__version__, "--version", prog_name="wasmlet")
def cli() -> None:
    """Run WebAssembly modules as Kubernetes pods."""


@cli.command("providers")
def _providers() -> None:
    """List the providers that are installed, and whether they can run here.

    Their settings are what WASMLET_* variables say.
    """
    points = providers.installed()
    if not points:
        click.echo("no provider is installed; try: pip install wasmlet-wasmtime")
    for name, point in points.items():
        try:
            remarks = _check(name)
            verdict = f"ready, but {'; '.join(remarks)}" if remarks else "ready"
        except ConfigError as error:
            verdict = str(error)
        except click.UsageError as error:
            verdict = error.format_message()
        version = point.dist.version if point.dist else "?"
        click.echo(f"{name}  {version}  {verdict}")


def _check(name: str) -> Sequence[str]:
    """Its remarks, where it can run."""
    kind = providers.load(name)
    with click.Command(name, params=options_of(kind.Config)).make_context(name, []) as context:
        provider = kind(instance_of(kind.Config, context.params))

    async def check() -> Sequence[str]:
        await provider.check()
        return await provider.remarks()

    return asyncio.run(check())


class _DemoCommand(click.Command):
    """`demo`: what follows a module on the command line is the module's, options and all."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_interspersed_args = False
        file = self.make_parser(ctx).parse_args(list(args))[0].get("file")
        ctx.allow_interspersed_args = not (isinstance(file, str) and is_module(Path(file)))
        return super().parse_args(ctx, args)


@cli.command("demo", cls=_DemoCommand)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--provider",
    type=click.Choice(["wasmtime", "wascc", "remote"]),
    default="wasmtime",
    show_default=True,
    help="What the node is made of: wascc runs signed actors; remote runs wasmtime in an agent, a process of its own.",
)
@click.option("--keep", is_flag=True, help="Stay up until Ctrl-C, so that kubectl can be used.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port of the API server; 6443 without it, or a free one.",
)
@click.option(
    "--serve",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="The module is a server: its pod has this port, as descriptor 3, and is asked over HTTP once it is ready. A "
    "component that serves HTTP has port 8080 without it.",
)
@click.option(
    "--egress",
    metavar="HOST:PORT,...",
    help="Whom the module may dial, as the annotation wasmlet.dev/egress says it; nobody without it.",
)
@click.option(
    "--node-monitor-grace-period",
    type=click.FloatRange(1, 86400),
    default=50,
    show_default=True,
    metavar="SECONDS",
    help="For how long a node may be silent before it counts as gone.",
)
@click.option("--log-level", type=click.Choice(LEVELS), default="error", show_default=True, help="How much is logged.")
def _demo(
    file: Path | None,
    args: tuple[str, ...],
    provider: str,
    keep: bool,
    port: int | None,
    serve: int | None,
    egress: str | None,
    node_monitor_grace_period: float,
    log_level: str,
    **registries: Any,
) -> None:
    """Try it: an embedded control plane, one node, and pods. Needs no cluster and no root.

    FILE is a manifest of one or more objects, with a pod among them or what makes pods; without it examples/hello.yaml
    and then examples/web.yaml. Relative modules in it (file://./x.wasm) are looked for beside it.

    FILE may also be a module (FILE.wasm), which is run in a pod of its own. ARGS are its arguments; options of the
    demo go before FILE.
    """
    from wasmlet.cli.demo.demo import Settings, demo

    log.configure(log_level)
    pulling = instance_of(RegistryConfig, registries)
    settings = Settings(keep, port, node_monitor_grace_period, pulling, serve, egress, provider)
    run_loop(demo(file, args[1:] if args[:1] == ("--",) else args, settings, click.echo))


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `wasmlet`."""
    execute(cli, args, "wasmlet")


def main_for(provider: str, args: Sequence[str] | None = None) -> NoReturn:
    """Entry point of a provider's own command: `wasmlet run` with the provider fixed."""
    try:
        command = _RunCommand(provider)
    except WasmletError as error:
        fail(error)
    execute(command, args, f"wasmlet-{provider}")


_demo.params += options_of(RegistryConfig)
cli.add_command(_RunCommand())
cli.add_command(DoctorCommand())
cli.add_command(operator.command)
cli.add_command(top)
for _command in artifacts.commands(run_loop):
    cli.add_command(_command)
