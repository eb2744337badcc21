"""The limits of a guest whose pod limits memory, in the form that `wasmtime_store_limiter` takes.

wasmtime limits each memory and each table by itself, and allows a module to have ten thousand of each. So their number
is limited, too. A guest with one memory may use all of the limit. In the worst case a module gets a little more than
twice the limit, and a component, whose parts have memories of their own, eight times. A cgroup, if there is one, limits
exactly.
"""

from __future__ import annotations

_ELEMENTS = 64 * 1024
"""How many elements, of 8 bytes each, a table may have under any limit."""


def of_module(memory: int, tables: int = 0) -> tuple[int, int, int, int, int]:
    """The limits of a module.

    Args:
        memory: the limit in bytes.
        tables: how many tables the store has in addition to the module's own.

    Returns:
        Bytes of each memory, elements of each table, and the number of instances (-1 for any), tables and memories.
    """
    return memory, max(_ELEMENTS, memory // 64), -1, 4 + tables, 2


def of_component(memory: int) -> tuple[int, int, int, int, int]:
    """The limits of a component, for all its parts together; see `of_module`."""
    return memory, max(_ELEMENTS, memory // 64), -1, 64, 8
