"""The command `wasmlet demo`: reads its options and runs `wasmlet.cli.demo.demo`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from wasmlet.artifacts.helpers import docker_config_file
from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.cli import log, providers
from wasmlet.cli.demo.manifests import is_module
from wasmlet.cli.execution import BadOption, run_loop
from wasmlet.cli.options import LEVELS, instance_of, options_of
from wasmlet.cli.progress import Working
from wasmlet.names import OWN
from wasmlet.options import option

DEFAULT = "wasmtime"
"""The provider where nobody names one and more than one is installed."""
_CHOSEN = "wasmlet.demo.provider"
"""Where a context has the name of the provider, which is known before the arguments are parsed."""


@attrs.frozen
class _Registries(RegistryConfig):
    """The settings of registries, and the user's own credentials: the demo's pods are the user's."""

    registry_auth_file: Path = option(
        factory=docker_config_file, help="Docker's config.json with credentials; the one of `docker login` without it."
    )


class _DemoCommand(click.Command):
    """`demo`: has the options of the provider that the arguments name, too.

    What follows a module on the command line is the module's, options and all.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        rest = super().get_params(ctx)[len(self.params) :]  # which is help
        return [*self.params, *self.own_params(ctx), *rest]

    def own_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options of the chosen provider that the demo does not set itself.

        Raises:
            BadOption: the provider is not installed, or needs an option that is another one of the demo's.
        """
        name = ctx.meta.get(_CHOSEN)
        if name is None or name in OWN["provider"]:  # those have only what the demo sets itself
            return []
        from wasmlet.cli.demo.halves import settings_of

        have = super().get_params(ctx)
        taken, names = {word for one in have for word in one.opts}, {one.name for one in have}
        found = settings_of(providers.load(name))
        own = [one for one in found if one.name not in names and not taken.intersection(one.opts)]
        for one in found:
            if one.required and one not in own:
                raise BadOption(f"provider {name!r} needs {one.opts[0]}, which means something else in the demo")
        return own

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_CHOSEN] = providers.named(_before_module(args)) or DEFAULT
        ctx.allow_interspersed_args = False
        file = self.make_parser(ctx).parse_args(list(args))[0].get("file")
        ctx.allow_interspersed_args = not (isinstance(file, str) and is_module(Path(file)))
        return super().parse_args(ctx, args)


def _before_module(args: Sequence[str]) -> Sequence[str]:
    """What stands before a module, and so is the demo's."""
    ends = (i for i, word in enumerate(args) if word == "--" or (word[:1] != "-" and is_module(Path(word))))
    return args[: next(ends, len(args))]


@click.command("demo", cls=_DemoCommand)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--pool",
    is_flag=True,
    help="Have a pool of nodes that the operator makes, as processes of this machine, instead of one node.",
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
def command(
    file: Path | None,
    args: tuple[str, ...],
    pool: bool,
    keep: bool,
    port: int | None,
    serve: int | None,
    egress: str | None,
    node_monitor_grace_period: float,
    log_level: str,
    **more: Any,
) -> None:
    """Try it: an embedded control plane, one node, and pods. Needs no cluster and no root.

    FILE is a manifest of one or more objects, with a pod among them or what makes pods; without it examples/hello.yaml
    and then examples/web.yaml, or what of them the provider can run. Relative modules in it (file://./x.wasm) are
    looked for beside it.

    With a provider of your own, --help lists its options, too.

    The API server runs Pods, Deployments, ReplicaSets, StatefulSets and Jobs. It has no DaemonSets, CronJobs or
    autoscalers, and nothing routes the addresses of Services: kubectl port-forward reaches them.

    FILE may also be a module (FILE.wasm), which is run in a pod of its own. ARGS are its arguments; options of the
    demo go before FILE.
    """
    from wasmlet.cli.demo.demo import Settings, demo

    context = click.get_current_context()
    provider, of_provider = context.meta[_CHOSEN], command.own_params(context)
    if pool and provider != "wasmtime":
        raise click.UsageError(f"--pool is of nodes with provider wasmtime, found --provider {provider}")
    options = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    own = {word for one in options for word in one.opts}
    if args[:1] != ("--",) and (meant := own.intersection(word.partition("=")[0] for word in args)):
        said = f"the module has {', '.join(sorted(meant))} among its arguments; options of the demo go before FILE"
        click.echo(f"Note: {said}", err=True)
    log.configure(log_level)
    pulling = instance_of(_Registries, more)
    given = {str(one.name): more[str(one.name)] for one in of_provider}
    settings = Settings(keep, port, node_monitor_grace_period, pulling, serve, egress, provider, pool, given)
    with Working() as working:
        run_loop(demo(file, args[1:] if args[:1] == ("--",) else args, settings, working.say, working.show))


_WHAT = (
    f"What the node is made of; without it the only provider that is installed, or {DEFAULT}. wascc runs signed "
    "actors; remote runs wasmtime in an agent, a process of its own"
)
command.params.insert(2, providers.option(_WHAT, expose_value=False))  # behind the arguments
command.params += options_of(_Registries)
