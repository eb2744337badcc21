"""Garbage collection of images and compiled modules: every five minutes, as in a kubelet; what pods need is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import NoReturn

import attrs
import structlog

from wasmlet.concurrency import in_thread
from wasmlet.errors import WasmletError
from wasmlet.runtime.files.storage import Storage
from wasmlet.runtime.images.compiler import Compiler
from wasmlet.runtime.images.registries import Registries

log = structlog.get_logger(__name__)

GC_SECONDS = 300.0


@attrs.frozen
class Used:
    """The images on this node that pods need.

    Attributes:
        modules: digests of the modules of all containers, as `sha256:...`.
        brought: digests of images that were handed to the node for its pods (`images.handed`).
    """

    modules: Collection[str]
    brought: Collection[str] = ()


async def collect(
    registries: Registries, compilers: Collection[Compiler], used: Callable[[], Used], storage: Storage
) -> NoReturn:
    """Run collections for as long as the node runs. The pauses use real time, not the clock that tests can replace.

    Args:
        used: returns what pods need now.
    """
    while True:
        try:
            await keep(registries, compilers, used(), storage)
            await asyncio.sleep(GC_SECONDS)
            await keep(registries, compilers, used(), storage)
            await registries.collect()
        except (WasmletError, OSError) as error:
            log.warning("images cannot be collected", error=str(error))
            await asyncio.sleep(GC_SECONDS)


async def keep(registries: Registries, compilers: Collection[Compiler], used: Used, storage: Storage) -> None:
    """Lock what pods need, also against other nodes' collections: images, compiled modules, mounted images."""
    await registries.keep(used.modules, await in_thread(storage.images), used.brought)
    for compiler in compilers:
        await compiler.keep({digest.removeprefix("sha256:") for digest in used.modules})
