"""wasi:sockets: TCP, to what the pod was granted; the broker makes the sockets (`p2.dialing`).

A guest listens on the ports of its container, and connects to what its pod may dial. UDP is in `datagrams`.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Sequence

from ..dialing import Asked
from ..instances import Failed, Instance, resource
from ..streams import CLOSED, ROOM, InputStream, OutputStream, Pollable, Waitable, failed
from ..world import function
from . import options
from .addresses import Address, Network, address_of, ask, code_of, family_number, remote_of, text_of

_TCP = "wasi:sockets/tcp.[method]tcp-socket."
_BACKLOG, _MOST_BACKLOG = 128, 4096


class SocketInput(InputStream):
    """What comes over a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def polls(self) -> Sequence[tuple[int, int]]:
        return ((self._socket.fileno(), select.POLLIN),)

    def ready(self) -> bool:
        return is_ready((self._socket,), select.POLLIN)

    def read(self, limit: int) -> bytes:
        try:
            found = os.read(self._socket.fileno(), limit)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise _failed(error) from None
        if not found:
            raise Failed(CLOSED)
        return found


class SocketOutput(OutputStream):
    """What goes over a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._out = bytearray()
        self._error: OSError | None = None

    def polls(self) -> Sequence[tuple[int, int]]:
        return ((self._socket.fileno(), select.POLLOUT),)

    def room(self) -> int:
        self._push()
        if self._error is not None:
            if self._error.errno == errno.EPIPE:
                raise Failed(CLOSED)
            raise _failed(self._error)
        return max(0, ROOM - len(self._out))

    def ready(self) -> bool:
        try:
            return self.room() > 0
        except Failed:
            return True

    def write(self, data: bytes) -> None:
        self._out += data
        self._push()

    def drained(self) -> bool:
        self._push()
        return not self._out or self._error is not None

    def _push(self) -> None:
        try:
            while self._out and self._error is None:
                del self._out[: os.write(self._socket.fileno(), self._out)]
        except BlockingIOError:
            pass
        except OSError as error:
            self._error = error


def _failed(error: OSError) -> Failed:
    return failed(str(error.strerror), network=code_of(error.errno))


def is_ready(sockets: Sequence[socket.socket], events: int) -> bool:
    """Whether at least one of these sockets is ready for these events of `poll`."""
    poll = select.poll()
    for sock in sockets:
        poll.register(sock.fileno(), events)
    return bool(poll.poll(0))


@resource("tcp-socket")
class TcpSocket(Waitable):
    """A socket of TCP, in one of the states of the interface.

    Args:
        family: `ipv4` or `ipv6`.
    """

    def __init__(self, family: str, sock: socket.socket | None = None) -> None:
        self.family = family
        self.state = "unbound" if sock is None else "connected"
        self.bound: Address | None = None
        self.remote: Address | None = None
        self.asked: Asked | None = None
        self.sock = sock
        self.more: list[socket.socket] = []
        """Further sockets of a listener, for the same port."""
        self.backlog = _BACKLOG
        self.options = options.Options(options.TCP, six=family == "ipv6")

    def polls(self) -> Sequence[tuple[int, int]]:
        if self.asked is not None:
            return self.asked.polls()
        if self.state == "listening":
            return [(sock.fileno(), select.POLLIN) for sock in self.listeners()]
        return ()

    def ready(self) -> bool:
        if self.asked is not None:
            return self.asked.answer() is not None
        return self.state != "listening" or is_ready(self.listeners(), select.POLLIN)

    def listeners(self) -> list[socket.socket]:
        """All sockets of the system on which it listens."""
        assert self.sock is not None
        return [self.sock, *self.more]

    def require(self, *states: str) -> None:
        """Raise `Failed` (`invalid-state`) unless it is in one of these states."""
        if self.state not in states:
            raise Failed("invalid-state")

    def answer(self, state: str) -> None:
        """Take the broker's answer to an operation that was begun, which has put the socket in this state.

        Raises:
            Failed: there is no answer yet, or it is an error.
        """
        if self.state != state or self.asked is None:
            raise Failed("not-in-progress")
        found = self.asked.answer()
        if found is None:
            raise Failed("would-block")
        asked, self.asked = self.asked, None
        if found.error:
            asked.drop()
            self.state = "closed" if state == "connecting" else "bound"
            raise Failed(code_of(found.error))
        found = asked.take_sockets(family_number(self.family), socket.SOCK_STREAM)
        asked.drop()
        if not found:
            raise Failed("not-supported")
        self.sock, *self.more = found
        for sock in found:
            self.options.apply(sock)

    def close(self) -> None:
        if self.asked is not None:
            self.asked.drop()
            self.asked = None
        # Its streams, which a guest drops first, are the only others that have it.
        if self.sock is not None:
            for sock in self.listeners():
                sock.close()


@function("wasi:sockets/tcp-create-socket.create-tcp-socket")
def _create(instance: Instance, family: str) -> TcpSocket:
    return TcpSocket(family)


@function(f"{_TCP}start-bind")
def _start_bind(instance: Instance, sock: TcpSocket, network: Network, address: Address) -> None:
    sock.require("unbound")
    if address[0] != sock.family:
        raise Failed("invalid-argument")
    sock.bound, sock.state = address, "binding"


@function(f"{_TCP}finish-bind")
def _finish_bind(instance: Instance, sock: TcpSocket) -> None:
    if sock.state != "binding":
        raise Failed("not-in-progress")
    sock.state = "bound"


@function(f"{_TCP}start-connect")
def _start_connect(instance: Instance, sock: TcpSocket, network: Network, address: Address) -> None:
    sock.require("unbound", "bound")
    text, port = remote_of(address, sock.family)
    sock.asked = ask(instance, "connect", host=text, port=port, protocol="TCP")
    sock.remote, sock.state = address, "connecting"


@function(f"{_TCP}finish-connect")
def _finish_connect(instance: Instance, sock: TcpSocket) -> tuple[SocketInput, SocketOutput]:
    sock.answer("connecting")
    sock.state = "connected"
    assert sock.sock is not None
    return SocketInput(sock.sock), SocketOutput(sock.sock)


@function(f"{_TCP}start-listen")
def _start_listen(instance: Instance, sock: TcpSocket) -> None:
    sock.require("bound")
    assert sock.bound is not None
    sock.asked = ask(instance, "listen", port=text_of(sock.bound)[1] or 0, protocol="TCP")
    sock.state = "starting"


@function(f"{_TCP}finish-listen")
def _finish_listen(instance: Instance, sock: TcpSocket) -> None:
    sock.answer("starting")
    try:
        for one in sock.listeners():
            one.listen(sock.backlog)
    except OSError as error:  # that somebody else listens there shows only now
        sock.close()
        sock.sock, sock.more, sock.state = None, [], "bound"
        raise Failed(code_of(error.errno)) from None
    sock.state = "listening"


@function(f"{_TCP}accept")
def _accept(instance: Instance, sock: TcpSocket) -> tuple[TcpSocket, SocketInput, SocketOutput]:
    sock.require("listening")
    for one in sock.listeners():
        try:
            descriptor, _ = one._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            continue
        except OSError as error:
            raise Failed(code_of(error.errno)) from None
        made = socket.socket(one.family, socket.SOCK_STREAM, 0, fileno=descriptor)
        made.setblocking(False)
        return TcpSocket(sock.family, made), SocketInput(made), SocketOutput(made)
    raise Failed("would-block")


@function(f"{_TCP}local-address")
def _local(instance: Instance, sock: TcpSocket) -> Address:
    if sock.sock is not None:
        return address_of(sock.sock.getsockname())
    if sock.bound is None:
        raise Failed("invalid-state")
    return sock.bound


@function(f"{_TCP}remote-address")
def _remote(instance: Instance, sock: TcpSocket) -> Address:
    sock.require("connected")
    assert sock.sock is not None
    try:
        return address_of(sock.sock.getpeername())
    except OSError:
        raise Failed("invalid-state") from None


@function(f"{_TCP}is-listening")
def _is_listening(instance: Instance, sock: TcpSocket) -> bool:
    return sock.state == "listening"


@function(f"{_TCP}address-family")
def _family(instance: Instance, sock: TcpSocket) -> str:
    return sock.family


@function(f"{_TCP}set-listen-backlog-size")
def _set_backlog(instance: Instance, sock: TcpSocket, size: int) -> None:
    if not size:
        raise Failed("invalid-argument")
    sock.require("unbound", "binding", "bound", "starting", "listening")
    sock.backlog = min(size, _MOST_BACKLOG)
    if sock.state == "listening":
        for one in sock.listeners():
            one.listen(sock.backlog)


@function(f"{_TCP}subscribe")
def _subscribe(instance: Instance, sock: TcpSocket) -> Pollable:
    return Pollable(sock)


@function(f"{_TCP}shutdown")
def _shutdown(instance: Instance, sock: TcpSocket, how: str) -> None:
    sock.require("connected")
    assert sock.sock is not None
    try:
        sock.sock.shutdown({"receive": socket.SHUT_RD, "send": socket.SHUT_WR}.get(how, socket.SHUT_RDWR))
    except OSError as error:
        raise Failed(code_of(error.errno)) from None


options.functions(_TCP, options.TCP)
