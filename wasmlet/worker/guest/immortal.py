"""Makes the zygote's objects immortal, so that its children can use them without writing to them.

Python counts the references to an object in the object itself. So each object that a child uses is written to, and the
page of memory that it is on is copied. From Python 3.12 on, objects whose count has a special value are not counted:
they live for ever, as `None` does. Here all objects get that value, just before the zygote begins to fork. None of them
would be freed before their process ends in any case.

Earlier versions count always. For them, and wherever objects look different in memory, nothing is done.
"""

from __future__ import annotations

import ctypes
import gc
import struct
import sys
import types
from typing import Any

_RUNNING = (types.FrameType, types.GeneratorType)
"""Objects that Python itself changes while it runs; they stay as they are."""


def make_all_immortal() -> None:
    """Make all objects immortal that the garbage collector knows, and all to which these refer."""
    # Elsewhere, what lies at an object's address may be no object.
    if sys.implementation.name != "cpython" or sys.byteorder != "little" or struct.calcsize("P") != 8:
        return
    immortal = _count(None).value
    if not _is_never_changed(immortal):
        return
    left: list[Any] = gc.get_objects()
    seen: dict[int, Any] = {}  # with the objects, so that none is freed before its count is set
    while left:
        found = left.pop()
        if id(found) in seen or found is left or found is seen or isinstance(found, _RUNNING):
            continue
        seen[id(found)] = found
        left += gc.get_referents(found)
        if isinstance(found, types.CodeType):  # the collector does not know to what these refer
            left += (found.co_consts, found.co_names, found.co_exceptiontable, found.co_linetable)
    for found in seen.values():
        _count(found).value = immortal


def _is_never_changed(immortal: int) -> bool:
    """Whether an object with this count is not counted: tried with one of our own."""
    tried = object()
    count = _count(tried)
    before, references = count.value, [tried, tried]
    if count.value != before + len(references):  # the count is somewhere else, or there is more than one
        return False
    count.value = immortal
    references += [tried, tried]
    return count.value == immortal


def _count(found: Any) -> ctypes.c_uint32:
    """The first 32 bits of an object, in memory."""
    return ctypes.c_uint32.from_address(id(found))
