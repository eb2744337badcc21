"""Memory that a process has freed and keeps."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def give_back() -> None:
    """Give memory that is free back to the system: the C library keeps most of it. Takes some milliseconds."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # not with every C library
            ctypes.CDLL(None).malloc_trim(0)
