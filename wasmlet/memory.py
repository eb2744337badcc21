"""Gives memory that this process has freed back to the system."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def give_back() -> None:
    """Have the C library return freed memory, most of which it keeps otherwise. Takes some milliseconds."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # not with every C library
            ctypes.CDLL(None).malloc_trim(0)
