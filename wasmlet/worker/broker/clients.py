"""One container, from the broker's view: its control socket, its grant, and its requests.

Everything that a guest sends is limited: the size of a packet, the number of requests under way, and one packet per
turn of the event loop. While a guest does not read its answers, the broker reads no more of its requests.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from .. import packets, wire
from ..grants import TCP, UDP, Grant
from ..log import log_problem
from ..loop import READ, WRITE, Loop
from . import dns, requests
from .dial import Dial
from .egress import Address, Egress, Name, NodeApi, address_of
from .lookup import Found, Lookup, Servers
from .names import Names
from .places import NODE, Places, family_of
from .requests import Refused

MAX_REFUSED = 32
"""How many refusals (destinations and capabilities) of one container the shim is told, each once."""
_KINDS = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}
_WILDCARDS: Mapping[int, str] = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
_SEND_BUFFER = 65536
_REPEAT_SECONDS = 5.0
"""How long a guest may take to repeat its requests after the broker was restarted."""


class Services(NamedTuple):
    """What the clients of all containers share.

    Attributes:
        refused: called for each refusal, with the container's name and what was refused: a destination, or a
            capability that the engine has refused to the guest (`packets.CAPABILITY`).
        most: how many requests each container may have under way now.
        node_api: where the node's own API is.
        dns_port: the port of all DNS servers.
    """

    loop: Loop
    places: Places
    refused: Callable[[str, str], None]
    most: Callable[[], int]
    node_api: NodeApi
    dns_port: int = 53


class _Work(Protocol):
    """The work that a request waits for: a dial or a lookup."""

    def start(self) -> None: ...

    def cancel(self) -> None: ...


class _Nothing:
    """The work of a parked request: none of its own, it waits for other requests."""

    def start(self) -> None:
        pass

    def cancel(self) -> None:
        pass


class Client:
    """Serves the requests of one container.

    It owns the control socket and the descriptor of the namespace from now on, and closes them.

    Args:
        namespace: descriptor of the pod's network namespace; `NODE` if it has none.
        datagrams: whether the container may have UDP sockets that are bound and not connected.
    """

    def __init__(
        self, name: str, control: socket.socket, namespace: int, grant: Grant, datagrams: bool, services: Services
    ) -> None:
        self._name = name
        self._control: socket.socket | None = control
        self._namespace = namespace
        self._grant = grant
        self._datagrams = datagrams
        self._services = services
        self._egress = Egress(grant, services.places.is_nodes, services.node_api)
        self._names_granted = Names(grant, self._egress)
        self._under_way: dict[int, _Work] = {}
        self._resolving: set[int] = set()
        self._repeating = False
        """Another broker had this container before, and the guest has not repeated all its requests yet."""
        self._parked: dict[int, tuple[Address, int, str]] = {}
        """Requests to connect to addresses that may be the result of a `resolve` which is still under way."""
        self._backlog: deque[tuple[bytes, list[socket.socket]]] = deque()
        self._told: set[str] = set()
        self._complained = False
        control.setblocking(False)
        control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        services.loop.add(control, READ, self._ready)

    def close(self) -> None:
        """Cancel everything under way, and close the control socket, which tells the guest."""
        if self._control is None:
            return
        for work in self._under_way.values():
            work.cancel()
        self._under_way.clear()
        self._parked.clear()
        for _, sockets in self._backlog:
            _close(sockets)
        self._backlog.clear()
        self._services.loop.remove(self._control)
        self._control.close()
        self._control = None
        if self._namespace >= 0:
            os.close(self._namespace)

    def restarted(self) -> None:
        """Tell the guest that this is a new broker, so that it repeats its requests."""
        self._repeating = True
        self._services.loop.later(_REPEAT_SECONDS, self._repeated)
        self._send(wire.pack({"restarted": True}), [])

    # Packets

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if not events & READ or self._backlog or self._control is None:
            return
        try:
            data, _, flags, _ = self._control.recvmsg(packets.MAX_PACKET)  # descriptors that come along are dropped
        except BlockingIOError:
            return
        except OSError:
            data, flags = b"", 0
        if not data:
            self._hang_up()
            return
        number: Any = None
        try:
            number, request = requests.parsed(data, flags)
            self._serve(number, request)
        except Refused as refused:
            self._refuse(number, refused.number, str(refused))
        except OSError as error:
            self._refuse(number, error.errno or errno.EIO, error.strerror or str(error))
        except Exception:
            self._refuse(number, errno.EIO, "an error of wasmlet's own; see the node's log")
            if not self._complained:
                self._complained = True
                log_problem(f"an error of wasmlet's own, for container {self._name}:\n{traceback.format_exc()}")

    def _hang_up(self) -> None:
        """Stop serving the guest, which is gone or breaks the protocol, and close our side."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)
            self.close()

    def _send(self, packet: bytes, sockets: list[socket.socket]) -> None:
        if self._control is None:
            _close(sockets)
            return
        self._backlog.append((packet, sockets))
        if len(self._backlog) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._backlog and self._control is not None:
            data, sockets = self._backlog[0]
            try:
                wire.send(self._control, data, tuple(sock.fileno() for sock in sockets))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS and sockets:
                    self._backlog.popleft()
                    _close(sockets)
                    number = json.loads(data).get("re")
                    self._backlog.appendleft(
                        (requests.refusal(number, errno.EMFILE, "too many sockets are on their way"), [])
                    )
                    continue
                self._hang_up()
                return
            self._backlog.popleft()
            _close(sockets)  # a copy here would keep the port in use after the guest has ended
        if self._control is not None:
            # While the guest does not read its answers, no further requests are read.
            self._services.loop.change(self._control, WRITE if self._backlog else READ)

    def _answer(self, number: int, fields: wire.Message, sockets: list[socket.socket]) -> None:
        self._under_way.pop(number, None)
        self._send(wire.pack({"re": number, **fields}), sockets)

    def _refuse(self, number: Any, error: int, why: str) -> None:
        self._under_way.pop(number, None)
        self._send(requests.refusal(number, error, why), [])

    # Requests

    def _serve(self, number: int, request: wire.Message) -> None:
        if number in self._under_way:
            return  # a repeated request that was already read
        if request.get("ask") == packets.REPEATED:
            self._repeated()
            return
        if len(self._under_way) >= min(packets.MAX_UNDER_WAY, self._services.most()):
            raise Refused(errno.EAGAIN, f"{len(self._under_way)} requests are under way")
        operation = request.get("ask")
        if operation == packets.LISTEN:
            self._listen(number, requests.port_of(request), requests.protocol_of(request))
        elif operation == packets.CONNECT:
            self._connect(
                number, requests.text_of(request, "host"), requests.port_of(request), requests.protocol_of(request)
            )
        elif operation == packets.RESOLVE:
            self._resolve(number, requests.text_of(request, "name"))
        elif operation == packets.USE:
            name = "".join(letter if letter.isprintable() else "?" for letter in requests.text_of(request, "name"))
            self._tell(packets.CAPABILITY + name)
            raise Refused(errno.EACCES, f"{name} is not granted")
        else:
            raise Refused(errno.EPROTO, f"expected an operation, found {str(operation)[:40]!r}")

    def _begin(self, number: int, work: _Work) -> None:
        self._under_way[number] = work
        work.start()

    def _listen(self, number: int, port: int, protocol: str) -> None:
        granted = next((one for one in self._grant.ports if (one.number, one.protocol) == (port, protocol)), None)
        if granted is None:
            self._tell(f"{packets.CAPABILITY}port {port}/{protocol} (none of the ports that it declares)")
            raise Refused(errno.EACCES, f"{protocol} port {port} is none of the container's ports")
        if protocol == UDP and not self._datagrams:
            raise Refused(errno.EPROTONOSUPPORT, "a port of UDP needs a process and a network namespace of its own")
        places = [(self._namespace, address, port) for address in self._own_addresses()]
        if protocol == TCP:
            # A socket of UDP that is not connected sends to anybody, and would do so from the node's own namespace.
            places += [(NODE, address, host_port) for address, host_port in granted.hosts]
        made: list[socket.socket] = []
        try:
            for place in places[: packets.MAX_SOCKETS]:
                made.append(self._services.places.bound(*place, _KINDS[protocol]))
        except OSError as error:
            _close(made)
            _, address, wanted = places[len(made)]
            raise Refused(error.errno or errno.EIO, f"{address} port {wanted}: {error.strerror}") from None
        self._answer(number, {}, made)

    def _own_addresses(self) -> Sequence[str]:
        """The addresses to bind a port to: the pod's; in a network namespace of the pod's own, all addresses there."""
        if self._namespace == NODE:
            return self._grant.addresses
        return list(dict.fromkeys(_WILDCARDS[family_of(address)] for address in self._grant.addresses))

    def _connect(self, number: int, host: str, port: int, protocol: str) -> None:
        literal = address_of(host)
        if literal is not None:
            self._connect_address(number, self._egress.meant(literal), port, protocol)
            return
        names = self._names(host, port)

        def found(result: Found) -> None:
            if result.name is None:
                self._refuse(number, result.error, f"{host}: {result.why}")
                return
            addresses = self._names_granted.dialable(result, port)
            if addresses:
                self._dial(number, addresses, port, protocol)
            else:
                refused = self._denied(f"{names[0].asked}:{port}")
                self._refuse(number, refused.number, str(refused))

        self._look_up(number, names, found)

    def _connect_address(self, number: int, address: Address, port: int, protocol: str) -> None:
        never = self._egress.never(address, port)
        if not never and self._egress.grants_address(address, port):
            self._dial(number, [address], port, protocol)
        elif never or not (self._resolving or self._repeating):
            raise self._denied(f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}")
        else:
            # The guest may know this address from a lookup that is not finished here, or that an earlier broker did.
            self._parked[number] = address, port, protocol
            self._begin(number, _Nothing())

    def _repeated(self) -> None:
        self._repeating = False
        self._connect_parked()

    def _connect_parked(self) -> None:
        parked, self._parked = self._parked, {}
        for number, (address, port, protocol) in parked.items():
            try:
                self._connect_address(number, address, port, protocol)
            except Refused as refused:
                self._refuse(number, refused.number, str(refused))

    def _resolve(self, number: int, host: str) -> None:
        literal = address_of(host)
        if literal is not None:
            self._answer(number, {"addresses": [str(literal)]}, [])
            return

        def found(result: Found) -> None:
            self._resolving.discard(number)
            if result.name is None:
                self._refuse(number, result.error, f"{host}: {result.why}")
            else:
                addresses = self._names_granted.dialable(result, None)
                self._egress.remember(result.name, addresses)
                self._answer(number, {"addresses": [str(address) for address in addresses]}, [])
            self._connect_parked()

        names = self._names(host, None)
        self._resolving.add(number)
        self._look_up(number, names, found)

    def _names(self, host: str, port: int | None) -> list[Name]:
        """The full names that a host may mean, as far as they are granted.

        Raises:
            Refused: there are none.
        """
        meant = self._names_granted.meant(host)
        granted = [name for name in meant if self._names_granted.has(name, port)]
        if not granted:
            raise self._denied(meant[0].asked if port is None else f"{meant[0].asked}:{port}")
        return granted

    def _look_up(self, number: int, names: list[Name], found: Callable[[Found], None]) -> None:
        grant = self._grant
        if (known := self._names_granted.known(names)) is not None:
            found(known)
            return
        own = {family_of(address) for address in grant.addresses} or {socket.AF_INET}
        kinds = [kind for kind, family in ((dns.A, socket.AF_INET), (dns.AAAA, socket.AF_INET6)) if family in own]

        def make(address: str, kind: int) -> socket.socket:
            return self._services.places.towards(self._namespace, address, kind, grant.addresses)

        resolver = grant.resolver
        servers = Servers(make, resolver.servers, kinds, resolver.timeout, resolver.attempts, self._services.dns_port)
        self._begin(number, Lookup(self._services.loop, servers, names, found))

    def _dial(self, number: int, addresses: list[Address], port: int, protocol: str) -> None:
        def make(address: str) -> socket.socket:
            return self._services.places.towards(self._namespace, address, _KINDS[protocol], self._grant.addresses)

        def done(sock: socket.socket | None, error: int) -> None:
            if sock is None:
                self._refuse(number, error, os.strerror(error))
                return
            try:
                fields = {"local": sock.getsockname()[:2], "peer": sock.getpeername()[:2]}
            except OSError as gone:  # it was connected a moment ago
                sock.close()
                self._refuse(number, gone.errno or errno.EIO, os.strerror(gone.errno or errno.EIO))
                return
            self._answer(number, fields, [sock])

        self._begin(number, Dial(self._services.loop, make, map(str, addresses), port, done))

    def _denied(self, what: str) -> Refused:
        """Report a destination that was not granted; returns the error to raise."""
        self._tell(what)
        return Refused(errno.EACCES, f"{what} is not among what the pod may dial")

    def _tell(self, what: str) -> None:
        """Report a refusal to the shim, each only once."""
        if what not in self._told and len(self._told) < MAX_REFUSED:
            self._told.add(what)
            self._services.refused(self._name, what)


def _close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
