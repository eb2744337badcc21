"""Finds out whether modules use the network, by their imports and exports. For most, which do not, it is not set up."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from wasmlet.concurrency import in_thread
from wasmlet.runtime import linking
from wasmlet.runtime.images.images import ImageError, Module, read

_MOST_KNOWN = 1000


class Imports:
    """Reads each module once.

    Args:
        max_bytes: the largest module.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._known: dict[str, linking.Uses] = {}
        self._turn = asyncio.Lock()

    async def uses_of(self, module: Module) -> linking.Uses:
        """What it does with a network."""
        if module.digest not in self._known:
            async with self._turn:  # of many pods that start with a new module, one reads it
                if module.digest not in self._known:
                    return await in_thread(self._find, module)
        return self._known[module.digest]

    def _find(self, module: Module) -> linking.Uses:
        # A copy, so that what is looked at is what has this digest, whatever becomes of the file meanwhile.
        copy = os.memfd_create("module", os.MFD_CLOEXEC)
        try:
            if read(module.path, self._max_bytes, copy) != module.digest:
                return linking.Uses()
            found = linking.uses_of(Path(f"/proc/self/fd/{copy}"))
        except (ImageError, OSError):  # whoever compiles it says what is wrong
            return linking.Uses()
        finally:
            os.close(copy)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[module.digest] = found
        return found
