"""The modules of `wasmlet_wasmtime` that an actor's process uses.

Importing `wasmlet_wasmtime` itself would load all that a node needs. So its modules are loaded below another package
name, without its `__init__`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from typing import TYPE_CHECKING

_NAME = "wasmlet_wasmtime_worker"


def _package() -> None:
    found = importlib.util.find_spec("wasmlet_wasmtime")
    if found is None or found.origin is None:
        raise ImportError("wasmlet-wasmtime is not installed")
    package = types.ModuleType(_NAME)
    package.__path__ = [os.path.dirname(found.origin)]
    sys.modules[_NAME] = package


if TYPE_CHECKING:
    from wasmlet_wasmtime import direct, errors, guest, limits
    from wasmlet_wasmtime.p2 import bodies, connections, dialing, exchanges, fields, front, instances, turns, wire
else:
    _package()
    direct, errors, guest, limits, bodies, connections, dialing, exchanges, fields, front, instances, turns, wire = (
        importlib.import_module(f"{_NAME}.{name}")
        for name in (
            "direct", "errors", "guest", "limits",
            "p2.bodies", "p2.connections", "p2.dialing", "p2.exchanges", "p2.fields", "p2.front", "p2.instances",
            "p2.turns", "p2.wire",
        )
    )  # fmt: skip

__all__ = [
    "bodies",
    "connections",
    "dialing",
    "direct",
    "errors",
    "exchanges",
    "fields",
    "front",
    "guest",
    "instances",
    "limits",
    "turns",
    "wire",
]
