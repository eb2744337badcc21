"""Asks the engines that are installed what they find out about a module, such as who has signed it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

import attrs

from wasmlet.artifacts.wasm import Binary
from wasmlet.runtime import linking
from wasmlet.runtime.engine import Engine, Needs
from wasmlet.runtime.handlers import GROUP


@attrs.frozen
class Facts:
    """What an engine has found out about a module.

    Attributes:
        shown: names and values; what is wrong where an engine would refuse the module.
        handler: the RuntimeClass of the pods that run it; "" where any does.
        needs: what these pods need.
    """

    shown: Mapping[str, str] = attrs.field(factory=dict)
    handler: str = ""
    needs: Needs = attrs.field(factory=Needs)


def facts_of(wasm: bytes, binary: Binary) -> Facts:
    """What the first engine that can examine this module says of it; if there is none, whether any engine can run it.

    An engine may name a function that all of its modules export (`links.entry`). It is asked only about modules that
    export that function.
    """
    unlinked: dict[str, list[str]] = {}
    runs = False
    exports = {extern.name for extern in binary.exports}
    failed: list[str] = []
    for point in entry_points(group=GROUP):
        try:
            kind = point.load()
        except Exception:  # what is wrong with it, `wasmlet providers` says
            continue
        if not (isinstance(kind, type) and issubclass(kind, Engine)):
            continue
        why = linking.unlinked(binary, kind.links, point.name) if kind.links is not None else ""
        if why:
            unlinked.setdefault(why, []).append(point.name)
        runs = runs or not why
        if not kind.examines:
            continue
        if kind.links is not None and kind.links.entry not in exports:
            continue
        try:
            return _of(kind, wasm)
        except Exception as error:  # an engine that is broken is no reason to show nothing
            failed.append(f"engine {point.name!r} has failed: {type(error).__name__}: {error}")
    shown = {"not examined": "; ".join(failed)} if failed else {}
    if unlinked and not runs:
        shown["refused"] = "; or ".join(f"{', '.join(names)}: {why}" for why, names in unlinked.items())
    return Facts(shown)


def _of(kind: type[Engine], wasm: bytes) -> Facts:
    handler = next(iter(kind.handlers), "")
    try:
        found = kind().examine(wasm)
    except ValueError as error:
        return Facts({"refused": str(error)}, handler)
    return Facts(kind.shown(found), handler, kind.needs(found))
