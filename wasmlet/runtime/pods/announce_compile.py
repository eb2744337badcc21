"""Tells a pod's owner that a container waits for its module to be compiled, if that takes more than a second.

A kubelet has no such step, so this is shown like an image pull: as events, and as a message beside the waiting reason
(ContainerCreating, PodInitializing). A failure of an earlier start is not shown in that time. The message names the
engine, and the last event says how long compiling took.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator

import attrs

from wasmlet.model.status import Waiting
from wasmlet.runtime.engine import Engine
from wasmlet.runtime.images.compiler import Announcement
from wasmlet.runtime.images.images import Module
from wasmlet.runtime.pods.pulling import duration
from wasmlet.runtime.shim.instances import Shown

QUIET_SECONDS = 1.0
"""How long nothing is told: most modules are compiled by then."""


def announce_compile(shown: Shown, module: Module, engine: Engine) -> Announcement:
    """What `Compiler.artifact` enters while the container waits for this module."""
    return functools.partial(_waiting, shown, module, engine)


@contextlib.asynccontextmanager
async def _waiting(shown: Shown, module: Module, engine: Engine) -> AsyncIterator[None]:
    time = asyncio.get_running_loop().time
    what = f'module of image "{module.image}" with {engine.name} {engine.version}'
    began, told, before = time(), asyncio.Event(), shown.state

    async def tell() -> None:
        await asyncio.sleep(QUIET_SECONDS)
        told.set()
        shown.say("Normal", "Compiling", f"Compiling {what}")
        if isinstance(before, Waiting):
            shown.show(attrs.evolve(shown.creating, message=f"compiling {what}"))

    task, after = asyncio.create_task(tell()), before
    try:
        yield
        after = shown.creating if isinstance(before, Waiting) else before
    finally:
        task.cancel()
        await asyncio.wait([task])
        if told.is_set() and shown.state != after and isinstance(shown.state, Waiting):
            shown.show(after)
    if told.is_set():
        shown.say("Normal", "Compiled", f"Successfully compiled {what} in {duration(time() - began)}")
