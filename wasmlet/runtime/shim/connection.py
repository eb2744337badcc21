"""The node loop's connection to the shim: keeps it up, mirrors the shim's records, and starts a shim if there is none.

`records` has every container that the shim knows. When the connection breaks, it is made again (to a new shim if the
old one died), and all containers are listed. So the records show how containers ended in the meantime, and that others
were lost together with their shim. `client` has the requests; the other side is
`wasmlet.worker.supervisor.connections`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import structlog

from wasmlet.clock import Backoff, Clock
from wasmlet.errors import ConfigError, WasmletError
from wasmlet.runtime.shim.records import ContainerRecord, decoded, encoded, launch_shim
from wasmlet.worker import messages, wire

log = structlog.get_logger(__name__)

START_SECONDS = 30.0
RECONNECT = Backoff(0.05, 5.0)


class ShimError(WasmletError):
    """The shim refused a request, or cannot be had."""


class ShimConnection:
    """A connection to the shim of one state directory, kept up from `start` to `close`.

    Args:
        state_dir: exists, mode 0700.
        idle_exit: seconds after which a shim that nobody needs ends by itself.
        changed: called on the event loop with each record that is new or different.
        cgroups: whether a shim that is started may make control groups.

    Attributes:
        confinement: what keeps guests in, each part by name, and in words whether it is on (`hello` in `wire`).
        groups: where containers' control groups are (the same).
    """

    def __init__(
        self,
        state_dir: Path,
        clock: Clock,
        idle_exit: float,
        changed: Callable[[ContainerRecord], None],
        *,
        cgroups: bool = True,
    ) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._idle_exit = idle_exit
        self._changed = changed
        self._cgroups = cgroups
        self.confinement: Mapping[str, str] = {}
        self.groups: Mapping[str, Any] = {}
        self._extensions: tuple[str, ...] = ()
        self.records: dict[str, ContainerRecord] = {}
        self.pid = 0
        self._socket: socket.socket | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._numbers = 0
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._listed: dict[str, ContainerRecord] | None = None
        self._sending = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._posts: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect, starting a shim if there is none, and take in what it knows.

        Raises:
            ConfigError: there is no shim and none can be started; the message is the shim's.
        """
        for attempt in (1, 2, 3):
            try:
                await self._connect()
                break
            except ConnectionError:  # the shim was about to end: the next try starts a new one
                if attempt == 3:
                    raise ConfigError(
                        f"the shim in {self._state_dir} ends whenever it is asked something; see shim.log there"
                    ) from None
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Leave the shim and all that runs in it."""
        await self._stop_keeping()
        for post in list(self._posts):
            post.cancel()
        await asyncio.gather(*self._posts, return_exceptions=True)
        self._disconnect()

    async def wait(self, container_id: str, *states: str) -> ContainerRecord:
        """Return the record once it is in one of these states; at once if the shim does not know the container."""
        while True:
            record = self.records.get(container_id)
            if record is None or record.state in states:
                return record or _vanished(container_id)
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(container_id, []).append(waiter)
            try:
                await waiter
            finally:
                waiting = self._waiters.get(container_id, [])
                if waiter in waiting:
                    waiting.remove(waiter)
                if not waiting:
                    self._waiters.pop(container_id, None)

    async def _ask(self, request: messages.Request, descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        """Ask, again over a new connection if this one breaks before the answer."""
        while True:
            await self._connected.wait()
            with contextlib.suppress(ConnectionError):
                return await self._ask_once(request, descriptors)

    async def _ask_once(self, request: messages.Request, descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        self._numbers += 1
        number = self._numbers
        data = wire.checked(encoded({**request.as_message(), "n": number}))
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        try:
            async with self._sending:
                await self._send(data, descriptors)
            answer = await reply
        except asyncio.CancelledError:
            if reply.done() and not reply.cancelled() and reply.exception() is None:
                wire.close(reply.result()["descriptors"])
            raise
        finally:
            self._replies.pop(number, None)
            if not reply.cancel() and not reply.cancelled():
                reply.exception()  # looked at, so that a lost connection is not reported once more
        if "error" in answer:
            raise ShimError(_said(request.OPERATION, str(answer["error"])))
        result: dict[str, Any] = answer["ok"] | {"descriptors": answer["descriptors"]}
        return result

    def _post(self, request: messages.Request) -> None:
        """Ask over the present connection without waiting for the answer; a connection that is lost needs no asking."""

        async def ask() -> None:
            with contextlib.suppress(ConnectionError, ShimError):
                await self._ask_once(request)

        task = asyncio.create_task(ask(), name=f"shim {request.OPERATION}")
        self._posts.add(task)
        task.add_done_callback(self._posts.discard)

    async def _send(self, data: bytes, descriptors: tuple[int, ...]) -> None:
        while True:
            sock = self._socket
            if sock is None:
                raise ConnectionResetError
            try:
                wire.send(sock, data, descriptors)
                return
            except BlockingIOError:
                await self._writable(sock)
            except OSError as error:
                self._connected.clear()  # or whoever asks again would do so at once, and keep others from connecting
                self._lost.set()
                raise ConnectionResetError from error

    async def _writable(self, sock: socket.socket) -> None:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(sock, ready.set)
        waits = [asyncio.ensure_future(event.wait()) for event in (ready, self._lost)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            if sock.fileno() >= 0:
                loop.remove_writer(sock)

    async def _stop_keeping(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])

    async def _keep(self) -> None:
        """Connect again whenever the connection is lost."""
        while True:
            await self._lost.wait()
            self._disconnect()
            log.warning("the connection to the shim is lost, connecting again")
            for pause in RECONNECT.pauses():
                try:
                    await self._connect()
                    break
                except (OSError, WasmletError) as error:
                    log.error("the shim cannot be had, trying again", error=str(error))
                    await self._clock.sleep(pause)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for attempt in (1, 2, 3):
            try:
                self._socket = wire.connect(str(self._state_dir))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                complaint = await launch_shim(self._state_dir, self._idle_exit, self._cgroups, START_SECONDS)
                if complaint and attempt == 3:
                    raise ConfigError(complaint) from None
        else:
            raise ConfigError(f"a shim was started in {self._state_dir}, and does not answer; see shim.log there")
        self._lost.clear()
        loop.add_reader(self._socket, self._on_readable)
        try:
            async with asyncio.timeout(START_SECONDS):
                greeting = messages.Greeting.of(await self._ask_once(messages.Hello()))
                if greeting.protocol != wire.PROTOCOL:
                    raise ConfigError(
                        f"the shim in {self._state_dir} speaks protocol {greeting.protocol}, expected "
                        f"{wire.PROTOCOL}: end its pods with the wasmlet that started it"
                    )
                self.pid = greeting.pid
                self.confinement = greeting.confinement or {"cgroup": "off: the shim is of an older wasmlet"}
                self.groups = greeting.groups
                self._extensions = greeting.extensions
                self._listed = {}
                await self._ask_once(messages.List(watch=True))
        except BaseException:
            self._disconnect()
            raise
        self._take_in(self._listed or {})
        self._connected.set()

    def _disconnect(self) -> None:
        self._connected.clear()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(ConnectionResetError())
        self._listed = None

    def _on_readable(self) -> None:
        for _ in range(64):
            if self._socket is None:
                return
            try:
                received = wire.receive(self._socket, decoded)
            except BlockingIOError:
                return
            except (wire.WireError, OSError) as error:
                log.warning("the connection to the shim failed", error=str(error))
                received = None
            if received is None:
                asyncio.get_running_loop().remove_reader(self._socket)
                self._lost.set()
                for reply in self._replies.values():
                    if not reply.done():
                        reply.set_exception(ConnectionResetError())
                return
            message, descriptors = received
            self._heard(message, descriptors)

    def _heard(self, message: Mapping[str, Any], descriptors: list[int]) -> None:
        if message.get("event") != "container":
            self._replied(message, descriptors)
            return
        try:
            record = ContainerRecord.of(message["container"])
            if self._listed is not None:
                self._listed[record.id] = record
            else:
                self._update(record)
        finally:  # it may be the reply to `run`, too
            self._replied({"ok": {"container": message["container"]}, **message}, descriptors)

    def _replied(self, message: Mapping[str, Any], descriptors: list[int]) -> None:
        reply = self._replies.get(message.get("re", 0))
        if "re" in message and "item" not in message and reply is not None and not reply.done():
            reply.set_result({**message, "descriptors": descriptors})
            return
        wire.close(descriptors)
        if "item" in message:
            if self._listed is not None:
                record = ContainerRecord.of(message["item"])
                self._listed[record.id] = record
        elif "re" in message:
            reply = self._replies.get(message["re"])
            if reply is not None and not reply.done():
                reply.set_result(dict(message))

    def _take_in(self, listed: dict[str, ContainerRecord]) -> None:
        self._listed = None
        gone = [record for record in self.records.values() if record.id not in listed]
        for record in gone:
            self._update(_vanished(record.id, record))
        for record in listed.values():
            if self.records.get(record.id) != record:
                self._update(record)

    def _update(self, record: ContainerRecord) -> None:
        self.records[record.id] = record
        for waiter in self._waiters.pop(record.id, ()):
            if not waiter.done():
                waiter.set_result(None)
        self._changed(record)


def _vanished(container_id: str, record: ContainerRecord | None = None) -> ContainerRecord:
    """A container of which the shim knows nothing any more."""
    known = record or ContainerRecord(container_id, {}, "", wire.ENDED)
    if known.ended and record is not None:
        return known
    return attrs.evolve(
        known,
        state=wire.ENDED,
        reason=wire.LOST,
        exit_code=wire.LOST_CODE,
        message="The container could not be located",
    )


def _said(operation: str, error: str) -> str:
    """What the shim has answered, in words for the user where it does not know what it is asked."""
    if not error.startswith("expected an operation"):
        return error
    return (
        f"an older wasmlet has started the shim that runs this node's containers, and it knows no {operation!r}; "
        "a new one takes its place once the node stops while no container runs"
    )
