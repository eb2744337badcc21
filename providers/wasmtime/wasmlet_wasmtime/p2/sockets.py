"""wasi:sockets: TCP, under what the pod was granted; the broker makes the sockets (`dialing`).

A guest listens at the ports of its container, and dials what its pod may dial. There is no UDP.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
from collections.abc import Sequence
from typing import Any

from .addresses import Address, Network, address_of, code_of, text_of
from .dialing import Asked
from .instances import Failed, Instance, Trapped, resource
from .streams import CLOSED, ROOM, InputStream, OutputStream, Pollable, Waitable, failed
from .world import function

_TCP = "wasi:sockets/tcp.[method]tcp-socket."
_UDP = "wasi:sockets/udp.[method]"
_BACKLOG = 128


class SocketInput(InputStream):
    """What comes over a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def polls(self) -> Sequence[tuple[int, int]]:
        return ((self._socket.fileno(), select.POLLIN),)

    def ready(self) -> bool:
        return _is(self._socket, select.POLLIN)

    def read(self, limit: int) -> bytes:
        try:
            found = os.read(self._socket.fileno(), limit)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise failed(str(error.strerror)) from None
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
            raise failed(str(self._error.strerror))
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


def _is(sock: socket.socket, events: int) -> bool:
    poll = select.poll()
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
        self.backlog = _BACKLOG
        self.values: dict[str, Any] = {
            "keep-alive-enabled": False, "keep-alive-idle-time": 7200 * 10**9, "keep-alive-interval": 75 * 10**9,
            "keep-alive-count": 9, "hop-limit": 64, "receive-buffer-size": 131072, "send-buffer-size": 131072,
        }  # fmt: skip

    def polls(self) -> Sequence[tuple[int, int]]:
        if self.asked is not None:
            return self.asked.polls()
        if self.sock is not None and self.state == "listening":
            return ((self.sock.fileno(), select.POLLIN),)
        return ()

    def ready(self) -> bool:
        if self.asked is not None:
            return self.asked.answer() is not None
        if self.sock is not None and self.state == "listening":
            return _is(self.sock, select.POLLIN)
        return True

    def require(self, *states: str) -> None:
        """Raise `invalid-state` in another one."""
        if self.state not in states:
            raise Failed("invalid-state")

    def answer(self, state: str) -> Any:
        """What has come of an operation that was begun.

        Raises:
            Failed: nothing yet, or an error.
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
        first, *others = asked.take()
        asked.drop()
        for more in others:  # the same port of the node
            os.close(more)
        family = socket.AF_INET if self.family == "ipv4" else socket.AF_INET6
        self.sock = socket.socket(family, socket.SOCK_STREAM, 0, fileno=first)
        return found

    def close(self) -> None:
        if self.asked is not None:
            self.asked.drop()
            self.asked = None
        # Its streams, which a guest drops first, are the only others that have it.
        if self.sock is not None:
            self.sock.close()


@function("wasi:sockets/tcp-create-socket.create-tcp-socket")
def _create(instance: Instance, family: str) -> TcpSocket:
    return TcpSocket(family)


@function("wasi:sockets/udp-create-socket.create-udp-socket")
def _create_udp(instance: Instance, family: str) -> Any:
    raise Failed("not-supported")


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
    text, port = text_of(address)
    if address[0] != sock.family or not port or ipaddress.ip_address(text).is_unspecified:
        raise Failed("invalid-argument")
    sock.asked = Asked(instance.host.broker, "connect", host=text, port=port, protocol="TCP")
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
    sock.asked = Asked(instance.host.broker, "listen", port=text_of(sock.bound)[1] or 0, protocol="TCP")
    sock.state = "starting"


@function(f"{_TCP}finish-listen")
def _finish_listen(instance: Instance, sock: TcpSocket) -> None:
    sock.answer("starting")
    assert sock.sock is not None
    sock.sock.listen(sock.backlog)
    sock.state = "listening"


@function(f"{_TCP}accept")
def _accept(instance: Instance, sock: TcpSocket) -> tuple[TcpSocket, SocketInput, SocketOutput]:
    sock.require("listening")
    assert sock.sock is not None
    try:
        descriptor, _ = sock.sock._accept()  # type: ignore[attr-defined]
    except OSError as error:
        raise Failed(code_of(error.errno)) from None
    made = socket.socket(sock.sock.family, socket.SOCK_STREAM, 0, fileno=descriptor)
    made.setblocking(False)
    return TcpSocket(sock.family, made), SocketInput(made), SocketOutput(made)


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
    sock.backlog = min(size, 4096)
    if sock.state == "listening" and sock.sock is not None:
        sock.sock.listen(sock.backlog)


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


def _option(name: str) -> None:
    """A value that the guest may ask and set. The system has its own, which a guest's process cannot set."""

    def get(instance: Instance, sock: TcpSocket) -> Any:
        return sock.values[name]

    def put(instance: Instance, sock: TcpSocket, value: Any) -> None:
        if value is not True and not value and name != "keep-alive-enabled":
            raise Failed("invalid-argument")
        sock.values[name] = value

    function(f"{_TCP}{name}")(get)
    function(f"{_TCP}set-{name}")(put)


for _name in (
    "keep-alive-enabled", "keep-alive-idle-time", "keep-alive-interval", "keep-alive-count", "hop-limit",
    "receive-buffer-size", "send-buffer-size",
):  # fmt: skip
    _option(_name)


def _without_udp(instance: Instance, *_: Any) -> Any:
    raise Trapped("there is no socket of UDP here")


function(
    *(
        f"{_UDP}udp-socket.{name}"
        for name in (
            "start-bind", "finish-bind", "stream", "local-address", "remote-address", "address-family",
            "unicast-hop-limit", "set-unicast-hop-limit", "receive-buffer-size", "set-receive-buffer-size",
            "send-buffer-size", "set-send-buffer-size", "subscribe",
        )
    ),
    *(f"{_UDP}incoming-datagram-stream.{name}" for name in ("receive", "subscribe")),
    *(f"{_UDP}outgoing-datagram-stream.{name}" for name in ("check-send", "send", "subscribe")),
)(_without_udp)  # fmt: skip
