"""Finds out whether modules use the network and files, by their imports and exports. Who does not gets neither."""

from __future__ import annotations

import os
from pathlib import Path

from wasmlet.concurrency import Shared
from wasmlet.runtime import linking
from wasmlet.runtime.images.images import ImageError, Module, read

_MOST_KNOWN = 1000


class Imports:
    """Reads each module once, and one that cannot be read once for all who ask meanwhile.

    Args:
        max_bytes: the largest module.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._known: dict[str, linking.Uses] = {}
        self._shared = Shared(self._find)

    async def uses_of(self, module: Module) -> linking.Uses:
        """What it does with a network and with files."""
        known = self._known.get(module.digest)
        return await self._shared.of(module) if known is None else known

    def _find(self, module: Module) -> linking.Uses:
        if (known := self._known.get(module.digest)) is not None:  # whoever asked before has read it
            return known
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
