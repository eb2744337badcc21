"""Helpers for asyncio: a small event, the first of several waits, threads, descriptors, and breaking a connection."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Literal, ParamSpec, TypeVar

P = ParamSpec("P")
K = TypeVar("K")
T = TypeVar("T")


class Event(asyncio.Event):
    """An event as asyncio has it, without a queue while nobody waits.

    That of asyncio takes 0.8 KiB from its beginning, and a node has several events for each of its pods.
    """

    def __init__(self) -> None:
        # Not the base's: this would make the queue.
        self._is_set = False
        self._waiting: list[asyncio.Future[None]] | None = None

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and let all continue that wait for it."""
        self._is_set = True
        waiting, self._waiting = self._waiting, None
        for future in waiting or ():
            if not future.done():
                future.set_result(None)

    def clear(self) -> None:
        """Let those wait that come from now on."""
        self._is_set = False

    async def wait(self) -> Literal[True]:
        """Return when it is set, at once where it is set already."""
        if not self._is_set:
            future = asyncio.get_running_loop().create_future()
            if self._waiting is None:
                self._waiting = []
            self._waiting.append(future)
            try:
                await future
            finally:
                if self._waiting is not None and future in self._waiting:
                    self._waiting.remove(future)
                    self._waiting = self._waiting or None
        return True

    def __repr__(self) -> str:
        return f"<Event {'set' if self._is_set else 'unset'}, {len(self._waiting or ())} waiting>"


async def first_of(*awaitables: Awaitable[Any]) -> None:
    """Wait until one of them is done, then cancel the others and wait for them; raise what the first one raised."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    done = set[asyncio.Future[Any]]()
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            del tasks, done, task  # one of them has the error, which has this call


class Breakable:
    """Something to wait for that can be broken off, as with `first_of` and an event, without tasks."""

    def __init__(self) -> None:
        self._limit: asyncio.Timeout | None = None
        self._task: asyncio.Task[Any] | None = None

    def break_off(self) -> None:
        """Cancel what is waited for; nothing where nobody waits, or where it is cancelled already and cleans up."""
        if self._task is None or self._task.cancelling():
            return
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def finished(self, work: Awaitable[Any]) -> bool:
        """Wait for the work; False where it was broken off. One at a time."""
        limit = self._limit = asyncio.timeout(None)
        self._task = asyncio.current_task()
        try:
            async with limit:
                await work
        except TimeoutError:
            if not limit.expired():
                raise
            return False
        finally:
            self._limit = self._task = None
        return True


def let_go(task: asyncio.Future[Any]) -> None:
    """Free what a task that is done has kept, if it was cancelled.

    Such a task keeps the error, and that the variables of all calls that it has passed through. Among these are often
    the task (a time limit has it) or the error (a task group has it). Without this, all of it would stay until the
    garbage collector finds it.
    """
    if not task.cancelled():
        return
    try:
        task.exception()  # the task keeps it no longer
    except asyncio.CancelledError as error:
        traceback.clear_frames(error.__traceback__)


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` in a thread, and return what it returns.

    If the caller is cancelled, it still waits for the thread to end: the thread may be using a descriptor that the
    caller closes next.
    """
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
    finally:
        del task  # has the error, which has this call: a circle of references


async def opened_in_thread(work: Callable[[], T], close: Callable[[T], object]) -> T:
    """Run `work`, which opens something, in a thread. If the caller is cancelled, what was opened goes to `close`."""
    opened: list[T] = []
    try:
        await in_thread(lambda: opened.append(work()))
    except BaseException:
        for one in opened:
            close(one)
        raise
    return opened[0]


class Together(Generic[K]):
    """Does `work`, which raises nothing, for many things in one thread: for all that are asked for meanwhile."""

    def __init__(self, work: Callable[[K], object]) -> None:
        self._work = work
        self._next: list[K] = []
        self._turn = asyncio.Lock()

    async def of(self, thing: K) -> None:
        """Return when the work is done for this."""
        some = self._next
        some.append(thing)
        async with self._turn:
            if some is self._next:  # else somebody else has had it done
                self._next = []
                await in_thread(self._all, some)

    def _all(self, things: list[K]) -> None:
        for thing in things:
            self._work(thing)


class Shared(Generic[K, T]):
    """Runs `work`, which finds something out, in a thread: once for all callers that ask for the same meanwhile.

    What a caller gets was found out after it has asked.
    """

    def __init__(self, work: Callable[[K], T]) -> None:
        self._work = work
        self._begun: dict[K, asyncio.Task[T]] = {}
        self._next: dict[K, asyncio.Task[T]] = {}

    async def of(self, key: K) -> T:
        """What `work(key)` returns; raises what it raises."""
        if (task := self._next.get(key)) is None:
            task = self._next[key] = asyncio.create_task(self._run(key, self._begun.get(key)))
        try:
            return await asyncio.shield(task)
        finally:
            del task  # has the error, which has this call

    async def _run(self, key: K, before: asyncio.Task[T] | None) -> T:
        if before is not None:
            await asyncio.wait([before])
        self._begun[key] = self._next.pop(key)
        try:
            return await in_thread(self._work, key)
        finally:
            del self._begun[key]


_REAP_SECONDS = 5.0


async def reap(process: asyncio.subprocess.Process) -> None:
    """Wait for a process that has just been killed.

    asyncio says that it has ended only when its pipes have, and reads them no further once there is much in them. So
    what is left in them is read here; but others that have them, as a daemon may, are not waited for.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REAP_SECONDS):
            for stream in (process.stdout, process.stderr):
                while stream is not None and await stream.read(2**16):
                    pass
            await process.wait()


async def ready(
    descriptor: int, add: Callable[[int, Callable[[], object]], object], remove: Callable[[int], object]
) -> None:
    """Wait until a descriptor can be read or written.

    Not `connect_read_pipe` and `connect_write_pipe`: uvloop closes the descriptor of a file object twice. Between the
    two, a thread may have opened something else that has the same number.

    Args:
        add, remove: of the running loop, `add_reader` and `remove_reader` or those of writers.
    """
    event = asyncio.Event()
    add(descriptor, event.set)
    try:
        await event.wait()
    finally:
        remove(descriptor)


def cut(transport: asyncio.BaseTransport | None) -> None:
    """Break a connection at once. Does nothing for None, or for a transport that only reads and has no `abort`.

    A TLS transport that was closed twice has let go of its connection. On Python 3.11.2, which Debian 12 has, `abort`
    raises an AttributeError then.
    """
    with contextlib.suppress(AttributeError):
        transport.abort()  # type: ignore[union-attr]
