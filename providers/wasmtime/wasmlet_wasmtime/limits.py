"""The most that a guest may have of its store, where its pod limits memory: what `wasmtime_store_limiter` takes.

wasmtime limits each memory and each table by itself, and lets a module have ten thousand of both, so that their number
is limited too. A guest with one memory gets all of it; whatever a guest is made of, it gets little more than twice
that (a component, whose parts have memories of their own, eight times). A cgroup, where there is one, is exact.
"""

from __future__ import annotations

_ELEMENTS = 64 * 1024
"""Elements, of 8 bytes, that any table may have."""


def of_module(memory: int, tables: int = 0) -> tuple[int, int, int, int, int]:
    """Bytes of a memory, elements of a table, and how many instances, tables (beside those) and memories."""
    return memory, max(_ELEMENTS, memory // 64), -1, 4 + tables, 2


def of_component(memory: int) -> tuple[int, int, int, int, int]:
    """The same for all parts of a component."""
    return memory, max(_ELEMENTS, memory // 64), -1, 64, 8
