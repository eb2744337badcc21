"""Facts about modules that engines find out on the node before compiling (`Engine.examine`)."""

from __future__ import annotations

import asyncio
import mmap
import os
from typing import Any

from wasmlet.concurrency import in_thread
from wasmlet.runtime.engine import Engine
from wasmlet.runtime.images.compile_process import Unfit
from wasmlet.runtime.images.images import ImageError, Module, read

_MOST_KNOWN = 1000


class Facts:
    """Reads each module once for each engine that wants to see it.

    Args:
        max_bytes: the largest module.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._known: dict[tuple[str, str], Any] = {}
        self._turn = asyncio.Lock()

    async def of(self, engine: Engine, module: Module) -> Any:
        """The facts about a module; None if the engine does not examine modules.

        Raises:
            Unfit: the engine does not run the module.
            ImageError: the file is another one by now.
        """
        if not engine.examines:
            return None
        key = engine.name, module.digest
        if key not in self._known:
            async with self._turn:  # a module may be large: one of them at a time
                found = self._known.get(key) or await in_thread(self._look, engine, module)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = found
        found = self._known[key]
        if isinstance(found, ValueError):
            raise Unfit(module.image, str(found))
        return found

    def _look(self, engine: Engine, module: Module) -> Any:
        # A copy, so that what is looked at is what has this digest, whatever becomes of the file meanwhile.
        copy = os.memfd_create("module", os.MFD_CLOEXEC)
        try:
            if read(module.path, self._max_bytes, copy) != module.digest:
                raise ImageError(f"module {module.image} changed while it was read")
            with mmap.mmap(copy, 0, access=mmap.ACCESS_READ) as whole, memoryview(whole) as view:
                try:
                    return engine.examine(view)
                except ValueError as error:
                    return ValueError(str(error))  # without its frames, which have the view
        finally:
            os.close(copy)
