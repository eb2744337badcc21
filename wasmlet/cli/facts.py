"""What the engines that are installed find out about a module, as who has signed it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points

from wasmlet.artifacts.wasm import Binary
from wasmlet.runtime.engine import Engine
from wasmlet.runtime.handlers import GROUP


def facts_of(wasm: bytes, binary: Binary) -> Iterator[tuple[str, str]]:
    """Names and values; what is wrong where an engine would refuse the module.

    An engine that examines modules names the function that all of its modules export; it sees those that do.
    """
    exports = {extern.name for extern in binary.exports}
    for point in entry_points(group=GROUP):
        try:
            kind = point.load()
        except Exception:  # what is wrong with it, `wasmlet providers` says
            continue
        if not (isinstance(kind, type) and issubclass(kind, Engine) and kind.examines):
            continue
        if kind.links is not None and kind.links.entry not in exports:
            continue
        try:
            found = kind.shown(kind().examine(wasm))
        except ValueError as error:
            found = {"refused": str(error)}
        yield from found.items()
