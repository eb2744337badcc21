"""`wasmlet providers`: which are installed, and whether they can run here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence

import attrs
import click

from wasmlet.cli import log, providers
from wasmlet.cli.options import instance_of, options_of
from wasmlet.cli.output import format_option
from wasmlet.errors import ConfigError


@attrs.frozen
class _Found:
    """A provider that is installed.

    Attributes:
        name, version: the provider's, and that of its distribution.
        ready: whether it can run here.
        remarks: what it does without on this machine.
        problem: why it cannot run here; "" where it can.
    """

    name: str
    version: str
    ready: bool
    remarks: Sequence[str] = ()
    problem: str = ""

    def line(self, width: int) -> str:
        """What the list says of it; `width` is that of the longest name."""
        remarks = f"ready, but {'; '.join(self.remarks)}" if self.remarks else "ready"
        said = remarks if self.ready else f"not ready: {self.problem}"
        return f"{self.name:<{width}}  {self.version}  {said}"


@click.command("providers", params=[format_option()])
def command(output: str) -> None:
    """List the providers that are installed, and whether they can run here.

    Their settings are what WASMLET_* variables say.
    """
    log.configure("error")  # what a provider says of itself is shown here
    if output == "json":
        click.echo(json.dumps([attrs.asdict(found) for found in _all()], indent=2))
        return
    if not providers.installed():
        click.echo("no provider is installed; try: pip install wasmlet-wasmtime")
    width = max(map(len, providers.installed()), default=0)
    for found in _all():
        click.echo(found.line(width))


def _all() -> Iterator[_Found]:
    for name, point in providers.installed().items():
        version = point.dist.version if point.dist else "?"
        try:
            yield _Found(name, version, ready=True, remarks=_check(name))
        except ConfigError as error:
            yield _Found(name, version, ready=False, problem=str(error))
        except click.UsageError as error:
            yield _Found(name, version, ready=False, problem=error.format_message())
        except Exception as error:  # one that is broken is no reason to show nothing of the others
            why = f"provider {name!r} cannot be used here: {type(error).__name__}: {error}"
            yield _Found(name, version, ready=False, problem=why)


def _check(name: str) -> Sequence[str]:
    """The remarks of the provider of that name; raises if it cannot run here."""
    kind = providers.load(name)
    with click.Command(name, params=options_of(kind.Config)).make_context(name, []) as context:
        provider = kind(instance_of(kind.Config, context.params))

    async def check() -> Sequence[str]:
        await provider.check()
        return await provider.remarks()

    return asyncio.run(check())
