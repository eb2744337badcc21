"""Which engines the demo's node offers beside its provider's own: those that pods ask for, or all that can run here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from wasmlet.errors import ConfigError
from wasmlet.names import OWN
from wasmlet.runtime import Engine, RuntimeConfig
from wasmlet.runtime.handlers import GROUP

PREFIX = "wasmlet-"
"""With the name of an engine: the RuntimeClass of its pods."""


async def wanted_engines(provider: str, acts: Sequence[Sequence[dict[str, Any]]], *, keep: bool) -> tuple[str, ...]:
    """The names of the engines.

    Args:
        provider: of the node, which has an engine of its own.
        acts: the parts of the demo, shown one after the other: for each the objects that are applied. Their pods may
            ask for an engine by their RuntimeClass.
        keep: the demo stays up, so pods may come later that ask for any engine.

    Raises:
        ConfigError: a pod asks for an engine that cannot run here; the message says what to do.
    """
    classes = {_class_of(body) for objects in acts for body in objects}
    asked = {name for name in OWN["engine"] if f"{PREFIX}{name}" in classes}
    found = []
    for name in OWN["engine"]:
        if name == provider or (name == "wasmtime" and provider == "remote") or not (keep or name in asked):
            continue
        if problem := await _problem(name):
            if name in asked:
                raise ConfigError(f"a pod has runtimeClassName {PREFIX}{name}, and {problem}")
        else:
            found.append(name)
    return tuple(found)


def _class_of(body: dict[str, Any]) -> str:
    """The RuntimeClass of the pods that an object is or makes."""
    spec = body.get("spec") or {}
    spec = spec if body["kind"] == "Pod" else (spec.get("template") or {}).get("spec") or {}
    return str(spec.get("runtimeClassName") or "")


async def _problem(name: str) -> str:
    """Why that engine cannot run here; "" where it can."""
    point = next((point for point in entry_points(group=GROUP) if point.name == name), None)
    if point is None:
        return f"the engine {name} is not installed; try: pip install wasmlet-{name}"
    try:
        engine: Engine = point.load().configured(RuntimeConfig())
        await engine.check()
    except Exception as error:  # one that is broken is not offered
        return f"the engine {name} cannot run here: {error or type(error).__name__}"
    return ""
