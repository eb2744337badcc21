"""The common base of exec, attach and port-forward: streams, and a session that carries them over some transport.

`wasmlet.kubelet.spdy_session` carries streams over SPDY/3.1 and `wasmlet.kubelet.channels` over a websocket's messages.
What they share is here: bytes that wait for their reader, how long a session may be silent, and how it ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import attrs

from wasmlet.clock import Clock

HELD_BYTES = 256 * 1024
"""How many unread bytes of its caller a session holds; above that it stops reading."""
WRITE_BYTES = 32 * 1024
"""How much is sent at a time, so that streams take turns."""


class CallerLeft(ConnectionError):
    """The caller is gone, or has broken the rules: whatever was done for it is to end."""


class SessionError(CallerLeft):
    """The session was ended from this side; the message says why."""


@attrs.frozen
class Timeouts:
    """Seconds; the first two are a kubelet's.

    Attributes:
        create: for the caller to create the streams that its request needs.
        idle: without a byte in either direction (`streamingConnectionIdleTimeout`); 0 for no limit.
        linger: for the caller to hang up after the end, so that the last bytes are not cut off.
        beat: between two signs of life while nothing can be read, which is when a caller's leaving would not be seen.
        head: for a caller's TLS handshake, from then to the end of its first request's head, and for each later head.
    """

    create: float = 30.0
    idle: float = 4 * 3600.0
    linger: float = 10.0
    beat: float = 10.0
    head: float = 10.0


class Stream(Protocol):
    """Bytes in both directions, each of which ends by itself."""

    async def read(self) -> bytes:
        """The next bytes; b"" once the caller sends no more."""
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the caller does not read.

        Raises:
            CallerLeft: the caller is gone.
        """
        ...

    async def end(self) -> None:
        """Send no more on this stream."""
        ...


class Inbox:
    """What the caller has sent on a stream and has not been read yet. One reader."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._pieces: deque[bytes] = deque()
        self._ended = False
        self._discards = False
        self._told = asyncio.Event()

    def feed(self, data: bytes) -> None:
        if not self._discards and not self._ended and data:
            self._pieces.append(data)
            self._held.add(len(data))
            self._told.set()

    def end(self) -> None:
        """The caller sends no more; what it has sent can still be read."""
        self._ended = True
        self._told.set()

    def discard(self) -> None:
        """Nobody is going to read this."""
        self._discards = True
        self._held.add(-sum(map(len, self._pieces)))
        self._pieces.clear()

    async def read(self) -> bytes:
        while not self._pieces:
            if self._ended or self._discards:
                return b""
            self._told.clear()
            await self._told.wait()
        piece = self._pieces.popleft()
        self._held.add(-len(piece))
        return piece


class Held:
    """How many bytes wait for a reader in all streams of a session."""

    def __init__(self) -> None:
        self.bytes = 0
        self._released = False
        self._room = asyncio.Event()

    def release(self) -> None:
        """Count no more: nothing will be read, and all that still comes is dropped."""
        self.bytes, self._released = 0, True
        self._room.set()

    def add(self, count: int) -> None:
        if self._released:
            return
        self.bytes += count
        if self.bytes < HELD_BYTES:
            self._room.set()
        else:
            self._room.clear()

    async def room(self, clock: Clock, every: float, beat: Callable[[], Awaitable[None]]) -> None:
        """Return when more may be read; `beat` is called every so often until then."""
        while self.bytes >= HELD_BYTES and not await within(clock, every, self._room.wait()):
            await beat()


async def within(clock: Clock, seconds: float, waited: Coroutine[Any, Any, Any]) -> bool:
    """Whether the coroutine ends within so many seconds. If not, it is cancelled."""
    tasks = asyncio.create_task(waited), asyncio.create_task(clock.sleep(seconds))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
            return True
        return False
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Carrier:
    """A session: streams between a caller and this node over one connection, carried while some work is done.

    A subclass says how bytes are moved (`movers`, which raise `CallerLeft` when the connection is over) and how to end
    in good order (`finish`), and calls `touch` for whatever is sent or received.

    Attributes:
        ended: why the work was cancelled, or "".
    """

    def __init__(self, clock: Clock, timeouts: Timeouts) -> None:
        self.clock = clock
        self.timeouts = timeouts
        self.ended = ""
        self._touched = clock.monotonic()

    def touch(self) -> None:
        self._touched = self.clock.monotonic()

    def movers(self) -> list[Coroutine[Any, Any, None]]:
        raise NotImplementedError

    async def finish(self) -> None:
        """End in good order while the movers still run; cancelled where one of them stops."""

    async def carry(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work while bytes are carried, then end in good order.

        Work whose caller leaves, breaks the rules or stays silent for too long is cancelled. That happens once, and its
        end is waited for: what a command needs to end in good order is not cut short by a second reason to end it. An
        error of the work is raised as it is.
        """
        job = asyncio.create_task(work)
        beside = [asyncio.create_task(mover) for mover in (*self.movers(), self._idle())]
        finish = None
        try:
            await asyncio.wait([job, *beside], return_when=asyncio.FIRST_COMPLETED)
            if job.done() and job.exception() is None:
                finish = asyncio.create_task(self.finish())
                await asyncio.wait([finish, *beside], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(job)
            await ended(*beside, *filter(None, [finish]))
        for task in (*beside, *filter(None, [finish]), job):
            error = None if task.cancelled() else task.exception()
            if isinstance(error, CallerLeft):
                self.ended = self.ended or str(error)
            elif error is not None:
                raise error

    async def _idle(self) -> None:
        if not self.timeouts.idle:
            await asyncio.Event().wait()
        while (left := self._touched + self.timeouts.idle - self.clock.monotonic()) > 0:
            await self.clock.sleep(left)
        raise SessionError(f"nothing was sent or received for {self.timeouts.idle:g} s")


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancel each task once, and wait until all have ended, however often the caller is cancelled meanwhile."""
    for task in tasks:
        task.cancel()
    cancelled = False
    while running := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
