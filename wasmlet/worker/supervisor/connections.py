"""The shim's socket, and the connections of node loops: they send requests, and may watch for changes.

A node loop that does not read is disconnected when `MAX_BACKLOG` bytes wait for it; it then connects again and lists
all containers. `wire` describes the operations, and `shim` carries them out. When a connection ends, its execs end,
and its attaches are undone.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from .. import messages, wire
from ..log import log_problem
from ..loop import READ, WRITE, Loop, Timer
from . import crilog
from .containers import Container
from .execs import Exec
from .groups import Groups
from .records import Record

MAX_BACKLOG = 32 * 1024 * 1024
MESSAGES_PER_TURN = 16

SLOW_SECONDS = 0.2
"""How long nobody is told of a container that is starting: most have begun or ended by then."""


class Operations(Protocol):
    """The operations that the shim offers to connections; `wire` describes them."""

    loop: Loop
    groups: Groups
    on_change: Callable[[Record, bytes], None]
    """Called after each change of a record, with its JSON (of one that is starting, that may be empty)."""

    @property
    def confinement(self) -> Mapping[str, str]: ...

    @property
    def records(self) -> Mapping[str, Record]: ...

    def run(self, request: messages.Run, descriptors: list[int]) -> Record: ...

    def stop(self, name: str, grace: float) -> Record | None: ...

    def container(self, name: str) -> Container: ...

    def exec(self, request: messages.Exec, descriptors: list[int], ended: Callable[[Record], None]) -> Exec: ...

    def listed(self, record: Record) -> None: ...

    def forget(self, names: Sequence[str]) -> Mapping[str, str]: ...

    def hello(self, request: messages.Hello) -> None: ...

    def warm(self, request: messages.Warm) -> None: ...

    def check_shutdown(self, force: bool) -> None: ...

    def shutdown(self, force: bool) -> None: ...

    def consider_leaving(self) -> None: ...


class Listener:
    """Accepts connections of this user's own processes on the socket in the current directory."""

    def __init__(self, shim: Operations) -> None:
        self._shim = shim
        self.connections: set[Connection] = set()
        self._untold: dict[str, Record] = {}
        """Containers that are starting, of which nobody was told so far."""
        self._slow: Timer | None = None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(wire.SOCKET)  # it was left by a shim that died: we have the lock, so no other shim lives
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._socket.bind(wire.SOCKET)
        self._socket.listen(64)
        shim.loop.add(self._socket, READ, self._accept)
        shim.on_change = self._changed

    def _accept(self, _: int) -> None:
        try:
            sock, _address = self._socket.accept()
        except BlockingIOError:
            return
        pid, uid = wire.peer(sock)
        if uid != os.getuid():
            log_problem(f"refused a connection of uid {uid} (pid {pid}), expected uid {os.getuid()}")
            sock.close()
            return
        sock.setblocking(False)
        self.connections.add(Connection(self._shim, self, sock))
        self._shim.consider_leaving()

    @property
    def watched(self) -> bool:
        """Whether a node loop hears of changes."""
        return any(connection.watches for connection in self.connections)

    def _changed(self, record: Record, data: bytes) -> None:
        if record.state == wire.STARTING:
            self._untold[record.id] = record
            if self._slow is None:
                self._slow = self._shim.loop.later(SLOW_SECONDS, self._tell_of_slow_ones)
        else:
            self._untold.pop(record.id, None)
            self._tell(record, data)

    def _tell_of_slow_ones(self) -> None:
        self._slow = None
        self.tell_all()

    def tell_all(self) -> None:
        """Tell of all that is starting, too: who is told knows all that the shim knows."""
        untold, self._untold = self._untold, {}
        for record in untold.values():
            self._tell(record, record.encoded())

    def _tell(self, record: Record, data: bytes) -> None:
        for connection in list(self.connections):
            number = connection.asked.pop(record.id, None)
            if number is not None:
                connection.send(wire.pack_with({"event": "container", "re": number}, "container", data))
            elif connection.watches:
                connection.send(wire.pack_with({"event": "container"}, "container", data))

    def gone(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._shim.consider_leaving()

    def close(self) -> None:
        """Stop listening and remove the socket. Answers that wait are sent first, as far as there is room."""
        self._shim.loop.remove(self._socket)
        self._socket.close()
        os.unlink(wire.SOCKET)
        for connection in list(self.connections):
            connection.close()


class Connection:
    """One node loop."""

    def __init__(self, shim: Operations, listener: Listener, sock: socket.socket) -> None:
        self._shim = shim
        self._listener = listener
        self._socket = sock
        self._backlog: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._waiting = 0
        self._open = True
        self.watches = False
        self.asked: dict[str, Any] = {}
        """The containers whose next event answers a request, and the numbers of these requests."""
        self._execs: dict[str, Exec] = {}
        self._attached: dict[int, tuple[Container, bool]] = {}
        shim.loop.add(sock, READ, self._ready)

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send now or as soon as the other side reads; the descriptors stay the caller's."""
        if not self._open:
            return
        self._backlog.append((data, tuple(map(os.dup, descriptors))))
        self._waiting += len(data)
        if self._waiting > MAX_BACKLOG:
            log_problem(f"a node loop leaves {self._waiting} bytes unread: cut off")
            self.close()
            return
        self._flush()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._shim.loop.remove(self._socket)
            self._socket.close()
            for _, descriptors in self._backlog:
                wire.close(descriptors)
            self._backlog.clear()
            for process in list(self._execs.values()):
                process.stop(0)
            for number in list(self._attached):
                self._detach(number)
            self._listener.gone(self)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if not events & READ:
            return
        for _ in range(MESSAGES_PER_TURN):
            if not self._open:
                return
            try:
                received = wire.receive(self._socket)
            except BlockingIOError:
                return
            except (wire.WireError, OSError) as error:
                log_problem(f"a node loop's connection failed: {error}")
                received = None
            if received is None:
                self.close()
                return
            self._answer(*received)

    def _flush(self) -> None:
        while self._backlog and self._open:
            try:
                wire.send(self._socket, *self._backlog[0])
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            data, descriptors = self._backlog.popleft()
            wire.close(descriptors)
            self._waiting -= len(data)
        if self._open:
            self._shim.loop.change(self._socket, READ | WRITE if self._backlog else READ)

    def _answer(self, message: dict[str, Any], descriptors: list[int]) -> None:
        number = message.get("n")
        try:
            try:
                request = messages.request_of(message)
            except wire.WireError:
                wire.close(descriptors)
                raise
            if isinstance(request, messages.Run):
                self._run(number, request, descriptors)
            elif isinstance(request, messages.Exec):
                self._exec(number, request, descriptors)
            else:
                wire.close(descriptors)
                self._do(number, request)
        except (wire.WireError, OSError, ValueError, TypeError) as error:
            self.send(wire.pack({"re": number, "error": str(error)[:2000]}))

    def _reply(self, number: Any, result: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        self.send(wire.pack({"re": number, "ok": result}), descriptors)

    def _reply_with(self, number: Any, name: str, record: Record) -> None:
        self.send(wire.pack_with({"re": number}, "ok", b'{"%s":%s}' % (name.encode(), record.encoded())))

    def _run(self, number: Any, request: messages.Run, descriptors: list[int]) -> None:
        record = self._shim.run(request, descriptors)
        if request.wait and record.state == wire.STARTING and record.id not in self.asked:
            self.asked[record.id] = number
        else:
            self._reply_with(number, "container", record)

    def _exec(self, number: Any, request: messages.Exec, descriptors: list[int]) -> None:
        """The reply comes when it has ended."""

        def ended(record: Record) -> None:
            self._execs.pop(record.id, None)
            self._reply_with(number, "exec", record)

        process = self._shim.exec(request, descriptors, ended)
        if process.record.state != wire.ENDED:
            self._execs[process.record.id] = process

    def _do(self, number: Any, request: messages.Request) -> None:
        """Do what comes without descriptors, and reply."""
        shim = self._shim
        match request:
            case messages.Hello():
                shim.hello(request)
                self._listener.tell_all()
                self._greet(number)
            case messages.List():
                self._list(number, request)
            case messages.Warm():
                shim.warm(request)
                self._reply(number, {})
            case messages.Stop():
                stopped = shim.stop(request.id, request.grace)
                if stopped is None:
                    self._reply(number, {"container": None})
                else:
                    self._reply_with(number, "container", stopped)
            case messages.Resize():
                container = shim.container(request.id)
                container.resize(request.resources)
                self._reply_with(number, "container", container.record)
            case messages.Given():
                self._reply(number, {}, shim.container(request.id).inherited)
            case messages.Attach():
                self._attach(number, request)
            case messages.Detach():
                self._detach(request.token)
                self._reply(number, {})
            case messages.Forget():
                logs = shim.forget(request.ids)
                gone = crilog.remove(logs) if request.logs else set()
                left = {"left": [name for name in request.ids if name not in gone]} if request.logs else {}
                self._reply(number, {"count": len(logs), **left})
            case messages.Shutdown():
                shim.check_shutdown(request.force)
                self._reply(number, {})
                shim.shutdown(request.force)

    def _greet(self, number: Any) -> None:
        shim = self._shim
        extensions = (messages.EXEC_COMMAND, messages.MAKE_MESSAGE, messages.NETWORK)
        greeting = messages.Greeting(wire.PROTOCOL, os.getpid(), shim.confinement, shim.groups.as_message(), extensions)
        self._reply(number, greeting.as_message())

    def _list(self, number: Any, request: messages.List) -> None:
        for record in list(self._shim.records.values()):
            self.send(wire.pack_with({"re": number}, "item", record.encoded()))
            if request.watch:
                self._shim.listed(record)
        self.watches = request.watch
        self._reply(number, {"count": len(self._shim.records)})

    def _attach(self, number: Any, request: messages.Attach) -> None:
        container = self._shim.container(request.id)
        token = int.from_bytes(os.urandom(6), "big")  # random, so that a token of another connection is not valid here
        self._attached[token] = (container, request.stdin)
        if request.stdin:
            stdin = [container.stdin] if container.stdin >= 0 else ()
            self._reply(number, messages.Attached(token).as_message(), stdin)
        else:
            self._reply(number, messages.Attached(token, container.attach()).as_message())

    def _detach(self, token: int) -> None:
        container, stdin = self._attached.pop(token, (None, False))
        if container is not None and stdin:
            container.leave_stdin()
        elif container is not None:
            container.detach()
