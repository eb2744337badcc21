"""The shim's side of its socket: node loops that ask and that watch.

A node loop that does not read what it is told is cut off when `MAX_BACKLOG` bytes wait for it; it connects again and
lists. The operations are in `wire`; `shim` does them. What a connection has asked for and has to be there for ends with
it: its execs, and whom it has attached.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from .. import wire
from .containers import Container
from .execs import Exec
from .groups import Groups, Resources
from .loop import READ, WRITE, Loop
from .records import Record, complain

MAX_BACKLOG = 32 * 1024 * 1024
MESSAGES_PER_TURN = 16


class Operations(Protocol):
    """What the shim does for those who are connected; `wire` says what each operation is."""

    loop: Loop
    groups: Groups
    on_change: Callable[[Record], None]
    """Called after each change of a record."""

    @property
    def confinement(self) -> Mapping[str, str]: ...

    @property
    def records(self) -> Mapping[str, Record]: ...

    def run(self, message: dict[str, Any], descriptors: list[int]) -> Record: ...

    def stop(self, name: str, grace: float) -> Record | None: ...

    def container(self, name: Any) -> Container: ...

    def exec(self, message: dict[str, Any], descriptors: list[int], ended: Callable[[Record], None]) -> Exec: ...

    def forget(self, names: list[Any]) -> int: ...

    def warm(self, zygote: Any) -> None: ...

    def check_shutdown(self, force: bool) -> None: ...

    def shutdown(self, force: bool) -> None: ...

    def consider_leaving(self) -> None: ...


class Listener:
    """Accepts connections of this user's own processes on the socket in the current directory."""

    def __init__(self, shim: Operations) -> None:
        self._shim = shim
        self.connections: set[Connection] = set()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(wire.SOCKET)  # of a shim that died: the lock says that no other one lives
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._socket.bind(wire.SOCKET)
        self._socket.listen(64)
        shim.loop.add(self._socket, READ, self._accept)
        shim.on_change = self._tell

    def _accept(self, _: int) -> None:
        try:
            sock, _address = self._socket.accept()
        except BlockingIOError:
            return
        pid, uid = wire.peer(sock)
        if uid != os.getuid():
            complain(f"refused a connection of uid {uid} (pid {pid}), expected uid {os.getuid()}")
            sock.close()
            return
        sock.setblocking(False)
        self.connections.add(Connection(self._shim, self, sock))
        self._shim.consider_leaving()

    def _tell(self, record: Record) -> None:
        watching = [connection for connection in self.connections if connection.watches]
        if watching:
            data = wire.pack({"event": "container", "container": record.as_message()})
            for connection in watching:
                connection.send(data)

    def gone(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._shim.consider_leaving()

    def close(self) -> None:
        """Stop listening and leave nothing behind; what was answered already is sent first as far as that goes."""
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
            complain(f"a node loop leaves {self._waiting} bytes unread: cut off")
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
                complain(f"a node loop's connection failed: {error}")
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
        number, operation = message.get("n"), message.get("op")
        try:
            if operation not in ("run", "exec"):
                wire.close(descriptors)
            if operation == "exec":
                self._exec(number, message, descriptors)
            elif operation in ("given", "attach"):
                self._hand_over(number, operation, message)
            else:
                self._reply(number, self._do(message, descriptors))
            if operation == "shutdown":
                self._shim.shutdown(bool(message.get("force")))
        except (wire.WireError, OSError, ValueError, TypeError) as error:
            self.send(wire.pack({"re": number, "error": str(error)[:2000]}))

    def _reply(self, number: Any, result: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        self.send(wire.pack({"re": number, "ok": result}), descriptors)

    def _exec(self, number: Any, message: dict[str, Any], descriptors: list[int]) -> None:
        """The reply comes when it has ended."""

        def ended(record: Record) -> None:
            self._execs.pop(record.id, None)
            self._reply(number, {"exec": record.as_message()})

        process = self._shim.exec(message, descriptors, ended)
        if process.record.state != wire.ENDED:
            self._execs[process.record.id] = process

    def _hand_over(self, number: Any, operation: str, message: dict[str, Any]) -> None:
        container = self._shim.container(message.get("id"))
        if operation == "given":
            self._reply(number, {}, container.inherited)
            return
        stdin = message.get("stdin") is True
        token = int.from_bytes(os.urandom(6), "big")  # of another connection it must mean nothing
        self._attached[token] = (container, stdin)
        if stdin:
            self._reply(number, {"token": token}, [container.stdin] if container.stdin >= 0 else ())
        else:
            self._reply(number, {"token": token, "position": container.attach()})

    def _detach(self, token: Any) -> None:
        container, stdin = self._attached.pop(token, (None, False))
        if container is not None and stdin:
            container.leave_stdin()
        elif container is not None:
            container.detach()

    def _do(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        shim, operation = self._shim, message.get("op")
        if operation == "hello":
            return {
                "protocol": wire.PROTOCOL,
                "pid": os.getpid(),
                "confinement": shim.confinement,
                "groups": shim.groups.as_message(),
            }
        if operation == "list":
            for record in list(shim.records.values()):
                self.send(wire.pack({"re": message.get("n"), "item": record.as_message()}))
            self.watches = bool(message.get("watch"))
            return {"count": len(shim.records)}
        if operation == "warm":
            shim.warm(message.get("zygote"))
            return {}
        if operation == "run":
            return {"container": shim.run(message, descriptors).as_message()}
        if operation == "stop":
            stopped = shim.stop(str(message.get("id")), float(message.get("grace", 0)))
            return {"container": stopped and stopped.as_message()}
        if operation == "resize":
            container = shim.container(message.get("id"))
            container.resize(Resources.of(message.get("resources")))
            return {"container": container.record.as_message()}
        if operation == "forget":
            return {"count": shim.forget(list(message.get("ids") or ()))}
        if operation == "detach":
            self._detach(message.get("token"))
            return {}
        if operation == "shutdown":
            shim.check_shutdown(bool(message.get("force")))
            return {}
        raise wire.WireError(f"expected an operation, found {str(operation)[:40]!r}")
