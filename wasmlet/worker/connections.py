"""The shim's side of its socket: node loops that ask and that watch.

A node loop that does not read what it is told is cut off when `MAX_BACKLOG` bytes wait for it; it connects again and
lists. The operations are in `wire`; `shim` does them.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from . import wire
from .loop import READ, WRITE
from .records import Record, complain

if TYPE_CHECKING:
    from .shim import Shim

MAX_BACKLOG = 32 * 1024 * 1024
MESSAGES_PER_TURN = 16


class Listener:
    """Accepts connections of this user's own processes on the socket in the current directory."""

    def __init__(self, shim: Shim) -> None:
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

    def __init__(self, shim: Shim, listener: Listener, sock: socket.socket) -> None:
        self._shim = shim
        self._listener = listener
        self._socket = sock
        self._backlog: deque[bytes] = deque()
        self._waiting = 0
        self._open = True
        self.watches = False
        shim.loop.add(sock, READ, self._ready)

    def send(self, data: bytes) -> None:
        """Send now or as soon as the other side reads."""
        if not self._open:
            return
        self._backlog.append(data)
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
                wire.send(self._socket, self._backlog[0])
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            self._waiting -= len(self._backlog.popleft())
        if self._open:
            self._shim.loop.change(self._socket, READ | WRITE if self._backlog else READ)

    def _answer(self, message: dict[str, Any], descriptors: list[int]) -> None:
        number = message.get("n")
        try:
            if message.get("op") != "run":
                wire.close(descriptors)
            self._reply(number, self._do(message, descriptors))
            if message.get("op") == "shutdown":
                self._shim.shutdown(bool(message.get("force")))
        except (wire.WireError, OSError, ValueError, TypeError) as error:
            self.send(wire.pack({"re": number, "error": str(error)[:2000]}))

    def _reply(self, number: Any, result: dict[str, Any]) -> None:
        self.send(wire.pack({"re": number, "ok": result}))

    def _do(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        shim, operation = self._shim, message.get("op")
        if operation == "hello":
            return {"protocol": wire.PROTOCOL, "pid": os.getpid()}
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
        if operation == "forget":
            return {"count": shim.forget(list(message.get("ids") or ()))}
        if operation == "shutdown":
            shim.check_shutdown(bool(message.get("force")))
            return {}
        raise wire.WireError(f"expected an operation, found {str(operation)[:40]!r}")
