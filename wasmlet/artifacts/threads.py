"""Work on the disk, in threads that nobody leaves behind."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it in a thread. Cancelled, it is still waited for: it may be using a descriptor that is closed next."""
    context = contextvars.copy_context()
    # As asyncio.to_thread() does it, without a task: each start of a container does this a few times.
    task = asyncio.get_running_loop().run_in_executor(None, functools.partial(context.run, work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            task.exception()
        raise


async def opened_in_thread(work: Callable[[], T], close: Callable[[T], object]) -> T:
    """Run what opens something in a thread. Cancelled, what it has opened is closed again."""
    opened: list[T] = []
    try:
        await in_thread(lambda: opened.append(work()))
    except BaseException:
        for one in opened:
            close(one)
        raise
    return opened[0]
