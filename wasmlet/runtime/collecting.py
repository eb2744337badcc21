"""Keeping the images and compiled modules that pods use, and removing others, every five minutes as a kubelet does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import NoReturn

import structlog

from wasmlet.concurrency import in_thread
from wasmlet.errors import WasmletError
from wasmlet.runtime.files.volumes import Storage
from wasmlet.runtime.images.compiler import Compiler
from wasmlet.runtime.images.registries import Registries

log = structlog.get_logger(__name__)

GC_SECONDS = 300.0


async def collect(
    registries: Registries, compilers: Collection[Compiler], used: Callable[[], set[str]], storage: Storage
) -> NoReturn:
    """Keep and collect for as long as the node runs. Pauses are of real time, as no pod's behaviour depends on them.

    Args:
        used: digests of the modules of all containers that are here, as `sha256:...`.
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


async def keep(registries: Registries, compilers: Collection[Compiler], used: set[str], storage: Storage) -> None:
    """Keep these modules, their images and compiled forms, and what pods mount, also from other nodes' collections."""
    await registries.keep(used, await in_thread(storage.images))
    for compiler in compilers:
        await compiler.keep({digest.removeprefix("sha256:") for digest in used})
