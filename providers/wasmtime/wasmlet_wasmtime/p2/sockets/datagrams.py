"""wasi:sockets: UDP, to what the pod was granted; the broker makes the sockets (`p2.dialing`).

A guest's socket is one of two kinds:

- It is bound to a port of its container. Then it is one socket of the system that is not connected, and may send to
  whatever its pod's network reaches. (For such a port, the pod needs a network namespace of its own.)
- Otherwise it has a connected socket of the system for each address to which it sends, if the pod may dial that. These
  are only written to, without an address, so they reach nobody else.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence

from ..dialing import Asked
from ..instances import Failed, Instance, Trapped, resource
from ..streams import Pollable, Waitable
from ..world import function
from . import options
from .addresses import Address, Network, address_of, ask, code_of, family_number, remote_of, text_of
from .tcp import is_ready

_UDP = "wasi:sockets/udp.[method]"
_LARGEST = 65535
_AT_ONCE = 64
"""Datagrams that one call takes or gives, at most."""
_BYTES_AT_ONCE = 64 * 1024
"""One call receives no further datagram after so many bytes: on its way to the guest, a byte takes 32."""
_MOST_PEERS = 32
"""The most addresses of a socket without a port. A further one replaces the one that was not used for longest."""


@resource("udp-socket")
class UdpSocket(Waitable):
    """A socket of UDP.

    Args:
        family: `ipv4` or `ipv6`.

    Attributes:
        sock: the system's socket that is bound to a port, or connected to the address that was given to `stream`.
        stream: the number of the newest pair of streams; older pairs no longer work.
    """

    def __init__(self, family: str) -> None:
        self.family = family
        self.state = "unbound"
        self.bound: Address | None = None
        self.asked: Asked | None = None
        self.sock: socket.socket | None = None
        self.has_port = False
        self.peers: dict[Address, socket.socket] = {}
        self.remote: Address | None = None
        self.stream = 0
        self.options = options.Options(options.UDP, six=family == "ipv6")

    def polls(self) -> Sequence[tuple[int, int]]:
        return self.asked.polls() if self.asked is not None else ()

    def ready(self) -> bool:
        return self.asked is None or self.asked.answer() is not None

    def sockets(self) -> list[socket.socket]:
        """All sockets of the system that it has."""
        return [self.sock] if self.has_port and self.sock is not None else [*self.peers.values()]

    def settle(self, asked: Asked) -> socket.socket:
        """The socket in the broker's answer.

        Raises:
            Failed: there is none.
        """
        answer = asked.answer()
        found = [] if answer.error else asked.take_sockets(family_number(self.family), socket.SOCK_DGRAM)
        asked.drop()
        if not found:
            raise Failed(code_of(answer.error) if answer.error else "not-supported")
        for more in found[1:]:
            more.close()
        self.options.apply(found[0])
        return found[0]

    def peer(self, instance: Instance, address: Address) -> socket.socket:
        """The socket that is connected to this address. If there is none, asks the broker for one, and waits for it.

        Raises:
            Failed: there can be none.
        """
        if address in self.peers:
            self.peers[address] = self.peers.pop(address)
            return self.peers[address]
        text, port = text_of(address)
        asked = ask(instance, "connect", host=text, port=port, protocol="UDP")
        try:
            instance.wait([_Answered(asked)])
            made = self.settle(asked)
        finally:
            asked.drop()
        if len(self.peers) >= _MOST_PEERS:
            self.peers.pop(next(iter(self.peers))).close()
        self.peers[address] = made
        return made

    def begin(self, remote: Address | None) -> int:
        """Begin a new pair of streams, and return its number."""
        for one in self.peers.values():
            one.close()
        self.peers.clear()
        if not self.has_port:
            self.sock = None
        self.remote = remote
        self.stream += 1
        return self.stream

    def close(self) -> None:
        self.begin(None)
        if self.asked is not None:
            self.asked.drop()
            self.asked = None
        if self.sock is not None:
            self.sock.close()
            self.sock, self.has_port = None, False
        self.state = "closed"


class _Answered:
    """Waits for an answer of the broker."""

    until: float | None = None

    def __init__(self, asked: Asked) -> None:
        self._asked, self.polls = asked, asked.polls

    def ready(self) -> bool:
        return self._asked.answer() is not None


class _Stream(Waitable):
    """One of the two streams of a socket."""

    events = 0

    def __init__(self, sock: UdpSocket, number: int) -> None:
        self._socket, self._number = sock, number

    def sockets(self) -> list[socket.socket]:
        """The sockets of the system that it uses.

        Raises:
            Failed: there is a newer pair of streams.
        """
        if self._socket.stream != self._number:
            raise Failed("invalid-state")
        return self._socket.sockets()

    def polls(self) -> Sequence[tuple[int, int]]:
        return [(sock.fileno(), self.events) for sock in self.sockets()]

    def ready(self) -> bool:
        try:
            found = self.sockets()
        except Failed:
            return True
        return is_ready(found, self.events)


@resource("incoming-datagram-stream")
class Incoming(_Stream):
    """The datagrams that come to a socket."""

    events = select.POLLIN

    def receive(self, most: int) -> list[tuple[bytes, Address]]:
        """The datagrams that have come, at most so many.

        Raises:
            Failed: there was an error, and no datagram before it.
        """
        found: list[tuple[bytes, Address]] = []
        size = 0
        for sock in self.sockets():
            for _ in range(_AT_ONCE):
                if len(found) >= min(most, _AT_ONCE) or size >= _BYTES_AT_ONCE:
                    return found
                try:
                    data, _, _, sender = sock.recvmsg(_LARGEST)
                except BlockingIOError:
                    break
                except OSError as error:  # what an earlier datagram has met with; it is told once
                    if found:
                        break
                    raise Failed(code_of(error.errno)) from None
                address = address_of(sender)
                if self._socket.remote in (None, address):
                    found.append((data, address))
                    size += len(data)
        return found


@resource("outgoing-datagram-stream")
class Outgoing(_Stream):
    """The datagrams that go out from a socket."""

    events = select.POLLOUT

    def __init__(self, sock: UdpSocket, number: int) -> None:
        super().__init__(sock, number)
        self._permitted = 0

    def ready(self) -> bool:
        sock = self._socket
        return not (sock.has_port or sock.remote) or super().ready()

    def check(self) -> int:
        """How many datagrams it takes now."""
        self.sockets()
        self._permitted = _AT_ONCE if self.ready() else 0
        return self._permitted

    def send(self, instance: Instance, datagrams: Sequence[tuple[bytes, Address | None]]) -> int:
        """Send datagrams until one cannot be sent. Returns how many were.

        Raises:
            Failed: the first one cannot be sent.
        """
        self.sockets()
        if len(datagrams) > self._permitted:
            raise Trapped("the guest has sent more datagrams than check-send said it may")
        self._permitted -= len(datagrams)
        for place, (data, address) in enumerate(datagrams):
            try:
                self._send(instance, data, self._to(address))
            except BlockingIOError:
                return place
            except (OSError, Failed) as error:
                if place:
                    return place
                raise error if isinstance(error, Failed) else Failed(code_of(error.errno)) from None
        return len(datagrams)

    def _to(self, address: Address | None) -> Address:
        remote = self._socket.remote
        wanted = remote if address is None else address
        if wanted is None or (remote is not None and wanted != remote):
            raise Failed("invalid-argument")
        remote_of(wanted, self._socket.family)
        return wanted

    def _send(self, instance: Instance, data: bytes, address: Address) -> None:
        sock = self._socket
        if sock.has_port and sock.sock is not None:
            sock.sock.sendmsg((data,), (), 0, text_of(address))
        else:
            os.write(sock.peer(instance, address).fileno(), data)


@function("wasi:sockets/udp-create-socket.create-udp-socket")
def _create(instance: Instance, family: str) -> UdpSocket:
    return UdpSocket(family)


@function(f"{_UDP}udp-socket.start-bind")
def _start_bind(instance: Instance, sock: UdpSocket, network: Network, address: Address) -> None:
    if sock.state != "unbound":
        raise Failed("invalid-state")
    if address[0] != sock.family:
        raise Failed("invalid-argument")
    port = text_of(address)[1]
    if port:  # without one it is bound as soon as it sends
        sock.asked = ask(instance, "listen", port=port, protocol="UDP")
    sock.bound, sock.state = address, "binding"


@function(f"{_UDP}udp-socket.finish-bind")
def _finish_bind(instance: Instance, sock: UdpSocket) -> None:
    if sock.state != "binding":
        raise Failed("not-in-progress")
    if sock.asked is not None:
        if sock.asked.answer() is None:
            raise Failed("would-block")
        asked, sock.asked, sock.state = sock.asked, None, "unbound"
        sock.sock = sock.settle(asked)
        sock.has_port = True
    sock.state = "bound"


@function(f"{_UDP}udp-socket.stream")
def _stream(instance: Instance, sock: UdpSocket, remote: Address | None) -> tuple[Incoming, Outgoing]:
    if sock.state != "bound":
        raise Failed("invalid-state")
    if remote is not None:
        remote_of(remote, sock.family)
    number = sock.begin(remote)
    if remote is not None and not sock.has_port:
        sock.sock = sock.peer(instance, remote)
    return Incoming(sock, number), Outgoing(sock, number)


@function(f"{_UDP}udp-socket.local-address")
def _local(instance: Instance, sock: UdpSocket) -> Address:
    if sock.state != "bound" or sock.bound is None:
        raise Failed("invalid-state")
    return address_of(sock.sock.getsockname()) if sock.sock is not None else sock.bound


@function(f"{_UDP}udp-socket.remote-address")
def _remote(instance: Instance, sock: UdpSocket) -> Address:
    if sock.remote is None:
        raise Failed("invalid-state")
    return sock.remote


@function(f"{_UDP}udp-socket.address-family")
def _family(instance: Instance, sock: UdpSocket) -> str:
    return sock.family


options.functions(f"{_UDP}udp-socket.", options.UDP)


@function(
    f"{_UDP}udp-socket.subscribe",
    f"{_UDP}incoming-datagram-stream.subscribe",
    f"{_UDP}outgoing-datagram-stream.subscribe",
)
def _subscribe(instance: Instance, source: Waitable) -> Pollable:
    return Pollable(source)


@function(f"{_UDP}incoming-datagram-stream.receive")
def _receive(instance: Instance, stream: Incoming, most: int) -> list[tuple[bytes, Address]]:
    return stream.receive(most)


@function(f"{_UDP}outgoing-datagram-stream.check-send")
def _check_send(instance: Instance, stream: Outgoing) -> int:
    return stream.check()


@function(f"{_UDP}outgoing-datagram-stream.send")
def _send(instance: Instance, stream: Outgoing, datagrams: Sequence[tuple[bytes, Address | None]]) -> int:
    return stream.send(instance, datagrams)
