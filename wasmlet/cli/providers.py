"""Which providers are installed: distributions announce theirs in the entry-point group `wasmlet.providers`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click
from click.shell_completion import CompletionItem

from wasmlet.cli.execution import BadOption
from wasmlet.errors import ConfigError
from wasmlet.names import not_installed
from wasmlet.provider import Provider

GROUP = "wasmlet.providers"


def installed() -> dict[str, EntryPoint]:
    """Entry points by provider name, in the order of their names."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def load(name: str) -> type[Provider]:
    """The provider class of that name.

    Raises:
        BadOption: it is not installed.
        ConfigError: it cannot be imported here.
    """
    points = installed()
    if name not in points:
        raise BadOption(not_installed("provider", name, points))
    try:
        provider = points[name].load()
    except Exception as error:
        raise ConfigError(f"provider {name!r} cannot be used here: {type(error).__name__}: {error}") from error
    if not (isinstance(provider, type) and issubclass(provider, Provider)):
        raise ConfigError(f"provider {name!r}: its entry point names {provider!r}, which is no subclass of Provider")
    return provider


def which() -> BadOption:
    """The error where nobody has said which provider is meant."""
    found = ", ".join(installed()) or "none; try: pip install wasmlet-wasmtime"
    return BadOption(f"which provider? Give --provider NAME (installed: {found})")


def named(args: Sequence[str], without: str = "") -> str | None:
    """The provider that the arguments or the environment name, before they are parsed; or the only one installed.

    Args:
        without: a provider that does not count as the only one; it has to be named.
    """
    for i, arg in enumerate(args):
        if arg == "--provider" and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith("--provider="):
            return arg.partition("=")[2]
    if name := os.environ.get("WASMLET_PROVIDER"):
        return name
    found = [name for name in installed() if name != without]
    return found[0] if len(found) == 1 else None


def option(what: str, **given: Any) -> click.Option:
    """The option `--provider`, whose values a shell completes.

    Args:
        what: is said of it.
    """

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in installed() if name.startswith(incomplete)]

    return click.Option(
        ["--provider"],
        metavar="NAME",
        envvar="WASMLET_PROVIDER",
        show_envvar=True,
        shell_complete=complete,
        help=f"{what}; see `wasmlet providers`.",
        **given,
    )
