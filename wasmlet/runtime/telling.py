"""Telling of a container that waits for its module to be compiled, once that takes longer than nobody minds.

A kubelet has no such step, so it is told in the manner of a pull: events, and beside the reason of a container that is
on its way (ContainerCreating, PodInitializing) a message. So a container whose last try failed does not show that
failure meanwhile. Which engine and how long is what one wants to know then; it is the machine's own time that compiling
takes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import attrs

from wasmlet.model.status import Waiting
from wasmlet.runtime.compile import Telling
from wasmlet.runtime.images import Module
from wasmlet.runtime.pulling import duration

if TYPE_CHECKING:
    from wasmlet.runtime.container import ContainerLife

QUIET_SECONDS = 1.0


def telling(life: ContainerLife, module: Module) -> Telling:
    """What `Compiler.artifact` enters while the container waits."""

    @contextlib.asynccontextmanager
    async def waiting() -> AsyncIterator[None]:
        time, engine = asyncio.get_running_loop().time, life.pod.handler.engine
        what = f'module of image "{module.image}" with {engine.name} {engine.version}'
        began, told, before = time(), asyncio.Event(), life.state

        async def tell() -> None:
            await asyncio.sleep(QUIET_SECONDS)
            told.set()
            life.say("Normal", "Compiling", f"Compiling {what}")
            if isinstance(before, Waiting):
                life.show(attrs.evolve(life.creating, message=f"compiling {what}"))

        task, after = asyncio.create_task(tell()), before
        try:
            yield
            after = life.creating if isinstance(before, Waiting) else before
        finally:
            task.cancel()
            await asyncio.wait([task])
            if told.is_set() and life.state != after and isinstance(life.state, Waiting):
                life.show(after)
        if told.is_set():
            life.say("Normal", "Compiled", f"Successfully compiled {what} in {duration(time() - began)}")

    return waiting
