"""A session over SPDY/3.1: the streams that a caller opens, with a reader and a writer of the connection beneath.

Memory is bounded without flow control: who writes to a stream waits while the caller does not read, and nothing more is
read from the caller while what it has sent waits for a reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from wasmlet.clock import Clock
from wasmlet.kubelet import spdy
from wasmlet.kubelet.sessions import WRITE_BYTES, CallerLeft, Carrier, Held, Inbox, SessionError, Timeouts, within
from wasmlet.kubelet.spdy_frames import Limits, ProtocolError, Reset
from wasmlet.kubelet.wires import Wire

WAITING_BYTES = 64 * 1024
"""A writer waits while more than this has not been sent yet."""
ANSWER_BYTES = 1024 * 1024
"""Nothing is read while so much waits to be sent, which can only be answers to pings and refusals."""


class SpdyStream:
    """A stream that the caller has opened.

    Attributes:
        number: its id in the connection.
        headers: by name, in lower case.
        broken: set when the caller has reset it.
    """

    def __init__(self, session: SpdySession, number: int, headers: Mapping[str, str], held: Held) -> None:
        self.number = number
        self.headers = headers
        self.inbox = Inbox(held)
        self.broken = asyncio.Event()
        self._session = session

    async def read(self) -> bytes:
        return await self.inbox.read()

    async def write(self, data: bytes) -> None:
        for at in range(0, len(data), WRITE_BYTES):
            await self._session.send(self.number, data[at : at + WRITE_BYTES])

    async def end(self) -> None:
        self._session.end(self.number)

    def reset(self, status: int = Reset.CANCEL) -> None:
        """End it in both directions."""
        self._session.reset(self.number, status)


class SpdySession(Carrier):
    """The server's side of a connection. `opened` gives the streams; each waits for `accept` or `SpdyStream.reset`."""

    def __init__(self, wire: Wire, clock: Clock, timeouts: Timeouts, limits: Limits | None = None) -> None:
        super().__init__(clock, timeouts)
        self._wire = wire
        self._spdy = spdy.Connection(client=False, limits=limits)
        self._streams: dict[int, SpdyStream] = {}
        self._opened: asyncio.Queue[SpdyStream] = asyncio.Queue()
        self._held = Held()
        self._refuses = False
        self._finished = False
        self._to_send = asyncio.Event()
        self._sent = asyncio.Event()
        """Some or all of what waited has been taken."""

    async def opened(self) -> SpdyStream:
        """The next stream that the caller opens."""
        return await self._opened.get()

    def accept(self, stream: SpdyStream) -> None:
        try:
            self._spdy.reply(stream.number)
        except spdy.StreamClosed:
            return  # reset meanwhile
        self._to_send.set()

    def refuse_more(self) -> None:
        """Reset whatever is opened from now on."""
        self._refuses = True
        while not self._opened.empty():
            self._opened.get_nowait().reset(Reset.REFUSED_STREAM)

    async def send(self, number: int, data: bytes) -> None:
        while self._spdy.waiting > WAITING_BYTES:
            self._sent.clear()
            await self._sent.wait()
        try:
            self._spdy.send_data(number, data)
        except spdy.StreamClosed:
            if self._spdy.failed is not None:
                await asyncio.Event().wait()  # the session ends, which cancels this writer
            raise CallerLeft("the caller has closed the stream") from None
        self._to_send.set()

    def end(self, number: int) -> None:
        try:
            self._spdy.end(number)
        except spdy.StreamClosed:
            return
        self._forget_closed(number)
        self._to_send.set()

    def reset(self, number: int, status: int) -> None:
        self._spdy.reset(number, status)
        self._drop(number)
        self._to_send.set()

    # --- carrying

    def movers(self) -> list[Coroutine[Any, Any, None]]:
        return [self._read(), self._write()]

    async def finish(self) -> None:
        self.refuse_more()
        self._finished = True
        self._held.release()
        self._spdy.go_away()
        await self._all_sent()
        # A connection closed with bytes unread takes the last ones on their way to the caller with it. Reading goes on
        # until the caller hangs up, which ends this.
        await self.clock.sleep(self.timeouts.linger)

    async def _read(self) -> None:
        while True:
            data = await self._wire.read()
            self.touch()
            try:
                events = self._spdy.receive_data(data)
            except ProtocolError as error:
                await within(self.clock, self.timeouts.linger, self._all_sent())
                raise SessionError(f"the caller's SPDY: {error}") from None
            for event in events:
                self._on(event)
            if self._spdy.waiting:
                self._to_send.set()
            while self._spdy.waiting > ANSWER_BYTES:
                self._sent.clear()
                await self._sent.wait()
            await self._held.room(self.clock, self.timeouts.beat, self._beat)

    async def _beat(self) -> None:
        self._spdy.beat()
        self._to_send.set()

    async def _write(self) -> None:
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            while data := self._spdy.data_to_send():
                await self._wire.write(data)
                self.touch()
                self._sent.set()
            self._sent.set()

    async def _all_sent(self) -> None:
        self._to_send.set()
        while self._spdy.waiting:
            self._sent.clear()
            await self._sent.wait()
        await self._wire.flush()

    def _on(self, event: spdy.Event) -> None:
        match event:
            case spdy.StreamOpened(number, headers):
                stream = SpdyStream(self, number, headers, self._held)
                if self._refuses:
                    stream.reset(Reset.REFUSED_STREAM)
                    return
                self._streams[number] = stream
                self._opened.put_nowait(stream)
            case spdy.DataReceived(number, data):
                if (found := self._streams.get(number)) is not None and not self._finished:
                    found.inbox.feed(data)
            case spdy.StreamEnded(number):
                if (found := self._streams.get(number)) is not None:
                    found.inbox.end()
                    self._forget_closed(number)
            case spdy.StreamReset(number, _):
                self._drop(number)
            case _:
                pass

    def _forget_closed(self, number: int) -> None:
        if number not in self._spdy:
            self._streams.pop(number, None)

    def _drop(self, number: int) -> None:
        if (stream := self._streams.pop(number, None)) is not None:
            stream.inbox.discard()
            stream.inbox.end()
            stream.broken.set()
