"""A proxy in front of an HTTP server that delays, drops, holds or repeats requests when a test says so.

    async with FaultProxy("127.0.0.1", port) as proxy:
        client = Client(proxy.url)
        held = proxy.trap("hold", "PUT", "/v1/pods/*")
        ...                       # the client asks, and gives up
        await held.sprung()
        held.release()            # the request arrives after all

What a trap can do with a request is in `Fault`. `partition` stops all bytes and `heal` lets them go on, as TCP does
after an outage; `cut` breaks every connection. `requests` has what has come, `connections` how many were opened.

HTTP/1.1 without TLS, one request at a time on a connection; an answer 101 makes the connection a pipe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Literal, Self

import attrs
import h11

from wasmlet.concurrency import cut, first_of

Fault = Literal["delay", "drop", "lose", "truncate", "hold", "duplicate", "reorder"]
"""What becomes of a request:

- `delay`: it arrives `seconds` later.
- `drop`: it never arrives, and its connection breaks.
- `lose`: it arrives, its answer does not, and the connection breaks.
- `truncate`: the connection breaks after `size` bytes of the answer.
- `hold`: it arrives when `Trap.release` is called, also where its sender has left by then.
- `duplicate`: it arrives again when it has been answered; the second answer goes nowhere.
- `reorder`: it arrives when a later one of those that the trap is for has been answered.
"""

_READ = 64 * 1024
_BROKEN = (OSError, EOFError, h11.ProtocolError)


@attrs.frozen
class Seen:
    """A request that has come to the proxy; `path` is without its query."""

    method: str
    path: str


class Trap:
    """Waits for requests, and does something with each; made by `FaultProxy.trap`."""

    def __init__(self, fault: Fault, method: str, path: str, times: int | None) -> None:
        self.fault = fault
        self.hits = 0
        """How many requests were caught."""
        self.seconds = 0.0
        self.size = 0
        self._method = method
        self._path = path
        self._left = times
        self._caught = asyncio.Event()
        self._free = asyncio.Event()

    async def sprung(self, times: int = 1) -> None:
        """Return when so many requests were caught."""
        while self.hits < times:
            self._caught.clear()
            await self._caught.wait()

    def release(self) -> None:
        """Let what is held go on; nothing is held from now on."""
        self._free.set()

    def matches(self, request: Seen) -> bool:
        """Whether the request is one of those that are waited for."""
        return self._method in ("*", request.method) and fnmatchcase(request.path, self._path)

    def catches(self, request: Seen) -> bool:
        """Whether this request is caught, which counts."""
        if not self.matches(request) or self._left == 0:
            return False
        self._left = None if self._left is None else self._left - 1
        self.hits += 1
        self._caught.set()
        return True

    async def freed(self) -> None:
        """Return when `release` was called."""
        await self._free.wait()


class FaultProxy:
    """Listens at a free port of loopback. Use as an async context manager.

    Args:
        host: the address of the server.
        port: its port.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self.requests: list[Seen] = []
        """What has come, oldest first."""
        self.connections = 0
        """How many connections were opened to the proxy."""
        self._traps: list[Trap] = []
        self._passing = asyncio.Event()
        self._passing.set()
        self._came = asyncio.Event()
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(*error)

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.port}"

    # --- trouble

    def trap(
        self,
        fault: Fault,
        method: str = "*",
        path: str = "*",
        *,
        times: int | None = 1,
        seconds: float = 0.0,
        size: int = 0,
    ) -> Trap:
        """Do something with the next requests of that kind; the trap that was set first comes first.

        Args:
            method: of the requests; "*" is any.
            path: without a query; `*` stands for any part of it.
            times: how many requests are caught; None is all.
            seconds: of a delay.
            size: bytes of the answer that arrive, with `truncate`.
        """
        trap = Trap(fault, method, path, times)
        trap.seconds, trap.size = seconds, size
        self._traps.append(trap)
        return trap

    def clear(self) -> None:
        """Take all traps away, and let go what they hold."""
        for trap in self._traps:
            trap.release()
        self._traps.clear()

    def partition(self) -> None:
        """Let nothing through, in either direction; connections stay and new ones are taken, as by a silent network."""
        self._passing.clear()

    def heal(self) -> None:
        """Let everything through again; what has come meanwhile goes on first."""
        self._passing.set()

    def cut(self) -> None:
        """Break every connection there is."""
        for connection in self._open:
            connection.cut()

    async def seen(self, holds: Callable[[Seen], bool], times: int = 1) -> None:
        """Return when so many requests of which this holds have come from the beginning."""
        while sum(map(holds, self.requests)) < times:
            self._came.clear()
            await self._came.wait()

    # --- for connections

    def caught(self, request: Seen) -> Trap | None:
        """Note the request; the trap that has caught it."""
        self.requests.append(request)
        self._came.set()
        return next((trap for trap in self._traps if trap.catches(request)), None)

    def answered(self, request: Seen) -> None:
        """A request was answered: those that wait for a later one go on."""
        for trap in self._traps:
            if trap.fault == "reorder" and trap.hits and trap.matches(request):
                trap.release()

    async def passing(self) -> None:
        """Return when bytes may pass."""
        await self._passing.wait()

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection to the server."""
        return await asyncio.open_connection(*self._target)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = _Connection(self, reader, writer)
        self._open.add(connection)
        task = self._group.create_task(connection.serve())
        self._tasks.add(task)

        def done(_: object) -> None:
            self._tasks.discard(task)
            self._open.discard(connection)

        task.add_done_callback(done)


@attrs.frozen
class _Request:
    seen: Seen
    content: bytes
    """As it goes to the server."""


class _Connection:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._ahead = bytearray()
        """What the client has sent of its next request."""
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def cut(self) -> None:
        """Break both connections."""
        cut(self._writer.transport)
        if self._server is not None:
            cut(self._server[1].transport)

    async def serve(self) -> None:
        """Pass requests on until the client leaves."""
        try:
            while (request := await self._next()) is not None:
                trap = self._proxy.caught(request.seen)
                if not await self._passed(request, trap):
                    break
                self._proxy.answered(request.seen)
        except _BROKEN:
            pass
        finally:
            self.cut()

    async def _next(self) -> _Request | None:
        """The client's next request, whole; None where it has left."""
        incoming, outgoing = h11.Connection(h11.SERVER), h11.Connection(h11.CLIENT)
        if self._ahead:  # nothing means to h11 that the client has left
            incoming.receive_data(bytes(self._ahead))
            self._ahead.clear()
        content, seen = bytearray(), Seen("", "")
        while True:
            event = incoming.next_event()
            if event is h11.NEED_DATA:
                data = await self._reader.read(_READ)
                await self._proxy.passing()
                incoming.receive_data(data)
                continue
            if isinstance(event, h11.ConnectionClosed):
                return None
            if isinstance(event, h11.Request):
                seen = Seen(event.method.decode(), event.target.decode().partition("?")[0])
            if isinstance(event, h11.Request | h11.Data | h11.EndOfMessage):
                content += outgoing.send(event) or b""
            if isinstance(event, h11.EndOfMessage):
                self._ahead += incoming.trailing_data[0]
                return _Request(seen, bytes(content))

    async def _passed(self, request: _Request, trap: Trap | None) -> bool:
        """Pass the request on, or what a trap makes of it; whether the connection can go on."""
        if trap is None:
            return await self._exchange(request)
        most: int | None = None
        match trap.fault:
            case "drop":
                return False
            case "delay":
                await asyncio.sleep(trap.seconds)
            case "hold" | "reorder":
                await trap.freed()
                most = 0 if self._reader.at_eof() else None  # the client has left: nobody waits for the answer
            case "truncate":
                most = trap.size
            case "lose":
                most = 0
        whole = await self._exchange(request, most)
        if trap.fault == "duplicate":
            await _Connection(self._proxy, self._reader, self._writer).again(request)
        return whole and most is None

    async def again(self, request: _Request) -> None:
        """Have the request arrive once more, over a connection of its own."""
        try:
            await self._exchange(request, most=0)
        finally:
            if self._server is not None:
                cut(self._server[1].transport)

    async def _exchange(self, request: _Request, most: int | None = None) -> bool:
        """Send the request, and pass its answer on; whether the connection can go on.

        Args:
            most: how many bytes of the answer are passed on; None for all. With 0 it is still read to its end.
        """
        if self._server is None:
            self._server = await self._proxy.dial()
        reader, writer = self._server
        answer = h11.Connection(h11.CLIENT)
        upgraded = asyncio.Event()
        writer.write(request.content)
        await writer.drain()
        _follow(answer, request.content)
        listening = self._listen(writer, upgraded) if most is None else asyncio.Event().wait()
        whole: list[bool] = []
        await first_of(self._answer(reader, answer, upgraded, whole, most), listening)
        return bool(whole) and whole[0]

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        answer: h11.Connection,
        upgraded: asyncio.Event,
        whole: list[bool],
        most: int | None,
    ) -> None:
        left = most
        while data := await reader.read(_READ):
            await self._proxy.passing()
            if left is None or left > 0:
                self._writer.write(data[:left])
                left = None if left is None else max(0, left - len(data))
                await self._writer.drain()
                if left == 0:
                    return
            if upgraded.is_set():
                continue
            answer.receive_data(data)
            while (event := answer.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                    upgraded.set()
                if isinstance(event, h11.EndOfMessage):
                    whole.append(answer.their_state is h11.DONE)
                    return

    async def _listen(self, writer: asyncio.StreamWriter, upgraded: asyncio.Event) -> None:
        """Notice that the client leaves; once the connection is a pipe, pass on what it sends."""
        while data := await self._reader.read(_READ):
            await self._proxy.passing()
            if upgraded.is_set():
                writer.write(data)
                await writer.drain()
            else:
                self._ahead += data


def _follow(answer: h11.Connection, request: bytes) -> None:
    """Tell the parser of the answer about the request, so that it knows which kind of answer to expect."""
    incoming = h11.Connection(h11.SERVER)
    incoming.receive_data(request)
    while not isinstance(event := incoming.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Request | h11.Data):
            answer.send(event)
    answer.send(h11.EndOfMessage())
