"""The option `--version`: prints the versions of wasmlet, of Python, and of the installed engines and providers."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import entry_points, version

import click

_ENGINES, _PROVIDERS = "wasmlet.engines", "wasmlet.providers"


def version_option() -> click.Option:
    """The option `--version` of a program."""

    def show(context: click.Context, parameter: click.Parameter, given: bool) -> None:
        if given and not context.resilient_parsing:
            click.echo("\n".join(versions()))
            context.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show the versions of wasmlet, Python and engines, and exit.",
    )


def versions() -> Iterator[str]:
    """A line for wasmlet, for Python, and for each distribution that has a provider or an engine."""
    yield f"wasmlet {version('wasmlet')}"
    yield f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    engines: dict[str, list[str]] = {}
    for group in (_PROVIDERS, _ENGINES):
        for point in entry_points(group=group):
            if point.dist is None:
                continue
            found = engines.setdefault(f"{point.dist.name} {point.dist.version}", [])
            if group == _ENGINES:
                try:
                    found.append(f"engine {point.name} {point.load()().version}")
                except Exception as error:  # one that is broken is no reason to show nothing of the others
                    found.append(f"engine {point.name} cannot be used here: {error or type(error).__name__}")
    yield from (", ".join((name, *found)) for name, found in sorted(engines.items()))
