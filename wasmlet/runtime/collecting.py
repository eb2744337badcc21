"""Keeping the images and compiled modules that pods use, and removing others, every five minutes as a kubelet does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import NoReturn

import attrs
import structlog

from wasmlet.concurrency import in_thread
from wasmlet.errors import WasmletError
from wasmlet.runtime.files.volumes import Storage
from wasmlet.runtime.images.compiler import Compiler
from wasmlet.runtime.images.registries import Registries

log = structlog.get_logger(__name__)

GC_SECONDS = 300.0


@attrs.frozen
class Used:
    """What pods need of the images that are here.

    Attributes:
        modules: digests of the modules of all containers, as `sha256:...`.
        brought: digests of the images that were brought for pods.
    """

    modules: Collection[str]
    brought: Collection[str] = ()


async def collect(
    registries: Registries, compilers: Collection[Compiler], used: Callable[[], Used], storage: Storage
) -> NoReturn:
    """Keep and collect for as long as the node runs. Pauses are of real time, as no pod's behaviour depends on them.

    Args:
        used: what pods need, now.
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
    """Keep these modules, their images and compiled forms, and what pods mount, also from other nodes' collections."""
    await registries.keep(used.modules, await in_thread(storage.images), used.brought)
    for compiler in compilers:
        await compiler.keep({digest.removeprefix("sha256:") for digest in used.modules})
