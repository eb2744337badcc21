"""Which providers are installed: distributions announce theirs in the entry-point group `wasmlet.providers`."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

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
        ConfigError: it is not installed, or cannot be imported here.
    """
    points = installed()
    if name not in points:
        raise ConfigError(not_installed("provider", name, points))
    try:
        provider = points[name].load()
    except Exception as error:
        raise ConfigError(f"provider {name!r} cannot be used here: {type(error).__name__}: {error}") from error
    if not (isinstance(provider, type) and issubclass(provider, Provider)):
        raise ConfigError(f"provider {name!r}: its entry point names {provider!r}, which is no subclass of Provider")
    return provider
