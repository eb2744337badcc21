"""Looks up a host name as a pod does: asks the pod's DNS servers in turn, for each full name that it may stand for."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..loop import READ, WRITE, Loop, Timer
from . import dns
from .egress import Address, Name

SECONDS = 30.0
"""How long the whole lookup may take."""
LAG_SECONDS = 0.5
"""After the answer for one address family, how long to wait for that of the other family."""
_MAX_STRAYS = 32
"""After how many invalid packets a server counts as one that does not answer."""
_MAX_TIMEOUT, _MAX_ATTEMPTS = 30.0, 5
_PORT = 53
_LONGEST = 65535


class Found(NamedTuple):
    """The result: the addresses of a name; or no name, and an errno with the reason."""

    name: Name | None
    addresses: tuple[Address, ...]
    error: int = 0
    why: str = ""


class Servers(NamedTuple):
    """The DNS servers to ask, and how to ask them.

    Attributes:
        make: makes a socket for connecting to this address, of this socket type; may raise `OSError`.
        kinds: the record types that the pod can use (A, AAAA).
        port: the port of all servers.
    """

    make: Callable[[str, int], socket.socket]
    addresses: Sequence[str]
    kinds: Sequence[int]
    timeout: float
    attempts: int
    port: int = _PORT


class Lookup:
    """One lookup. Begin it with `start`; `done` is called once, with the result."""

    def __init__(self, loop: Loop, servers: Servers, names: Sequence[Name], done: Callable[[Found], None]) -> None:
        self._loop = loop
        self._servers = servers
        self._names = list(names)
        self._done: Callable[[Found], None] | None = done
        attempts = max(1, min(_MAX_ATTEMPTS, servers.attempts))
        self._order = list(servers.addresses) * attempts
        self._turn = 0
        self._queries: list[_Query] = []
        self._addresses: dict[int, tuple[Address, ...]] = {}
        self._error, self._why = errno.EHOSTDOWN, "no DNS server has answered"
        self._lag: Timer | None = None
        self._deadline: Timer | None = None

    def start(self) -> None:
        if not self._order:
            self._finish(Found(None, (), errno.EHOSTDOWN, "the pod has no DNS server"))
            return
        self._deadline = self._loop.later(SECONDS, self._give_up)
        self._ask()

    def cancel(self) -> None:
        """Let go of everything; `done` is not called any more."""
        self._done = None
        for timer in (self._lag, self._deadline):
            if timer is not None:
                timer.cancel()
        self._drop_queries()

    def _drop_queries(self) -> None:
        queries, self._queries = self._queries, []
        for query in queries:
            query.close()

    def _ask(self) -> None:
        """Ask the server whose turn it is for the name whose turn it is."""
        self._addresses = {}
        if not self._names:
            self._finish(Found(None, (), errno.ENOENT, "there is no such name, or it has no address"))
            return
        if self._turn >= len(self._order):
            self._give_up()
            return
        server, name = self._order[self._turn], self._names[0].full
        timeout = max(0.1, min(_MAX_TIMEOUT, self._servers.timeout))
        self._queries = [
            _Query(self._loop, self._servers, (server, name, kind), timeout, self._answered)
            for kind in self._servers.kinds
        ]
        for query in list(self._queries):
            query.start()

    def _answered(self, query: _Query, answer: dns.Answer | None) -> None:
        """Handle the answer to one query; None if the server did not answer, or failed."""
        if query not in self._queries:
            return
        self._queries.remove(query)
        if answer is not None and answer.code not in (dns.NO_ERROR, dns.NO_NAME):
            self._error, self._why = errno.EIO, f"the DNS server has failed (code {answer.code})"
            answer = None
        if answer is not None:
            self._addresses[query.kind] = answer.addresses
        if not self._queries:
            self._conclude()
        elif answer is not None and answer.addresses and self._lag is None:
            self._lag = self._loop.later(LAG_SECONDS, self._conclude)

    def _conclude(self) -> None:
        """End the queries to this server, and decide what comes next: finish, the next name, or the next server."""
        if self._lag is not None:
            self._lag.cancel()
            self._lag = None
        self._drop_queries()
        addresses = tuple(one for kind in self._servers.kinds for one in self._addresses.get(kind, ()))
        if addresses:
            self._finish(Found(self._names[0], addresses))
            return
        if len(self._addresses) == len(self._servers.kinds):
            del self._names[0]
        else:
            self._turn += 1
        self._ask()

    def _give_up(self) -> None:
        self._finish(Found(None, (), self._error, self._why))

    def _finish(self, found: Found) -> None:
        done = self._done
        self.cancel()
        if done is not None:
            done(found)


class _Query:
    """One query to one server, over UDP, and then over TCP if the answer does not fit."""

    def __init__(
        self,
        loop: Loop,
        servers: Servers,
        asked: tuple[str, str, int],
        timeout: float,
        done: Callable[[_Query, dns.Answer | None], None],
    ) -> None:
        self._loop = loop
        self._servers = servers
        self._server, self._name, self.kind = asked
        self._timeout = timeout
        self._done = done
        self._number = int.from_bytes(os.urandom(2), "big")
        self._socket: socket.socket | None = None
        self._timer: Timer | None = None
        self._strays = 0
        self._received = b""

    def start(self) -> None:
        self._timer = self._loop.later(self._timeout, lambda: self._end(None))
        self._begin(socket.SOCK_DGRAM)

    def close(self) -> None:
        """Close the socket and cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._loop.remove(self._socket)
            self._socket.close()
            self._socket = None

    def _end(self, answer: dns.Answer | None) -> None:
        self.close()
        self._done(self, answer)

    def _begin(self, kind: int) -> None:
        """Connect a socket: the kernel then drops packets from others, and chooses a random local port."""
        try:
            sock = self._socket = self._servers.make(self._server, kind)
            number = sock.connect_ex((self._server, self._servers.port))
            self._loop.add(sock, WRITE, self._send)
        except OSError:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            number = errno.EIO
        if number not in (0, errno.EINPROGRESS):
            self._later_end()

    def _later_end(self) -> None:
        """End in the next turn of the loop: the caller of `start` does not expect `done` to be called at once."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.later(0, lambda: self._end(None))

    def _send(self, _: int) -> None:
        assert self._socket is not None
        data = dns.question(self._number, self._name, self.kind)
        over_tcp = self._socket.type == socket.SOCK_STREAM
        try:
            self._socket.send(len(data).to_bytes(2, "big") + data if over_tcp else data)
        except OSError:
            self._end(None)
            return
        self._loop.remove(self._socket)
        self._loop.add(self._socket, READ, self._hear_tcp if over_tcp else self._hear)

    def _hear(self, _: int) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_LONGEST)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there
            self._end(None)
            return
        try:
            answer = dns.read(data, self._number, self._name, self.kind)
        except dns.Bad:
            self._strays += 1
            if self._strays >= _MAX_STRAYS:
                self._end(None)
            return
        if answer.truncated:
            self._loop.remove(self._socket)
            self._socket.close()
            self._socket = None
            self._begin(socket.SOCK_STREAM)
        else:
            self._end(answer)

    def _hear_tcp(self, _: int) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_LONGEST + 2 - len(self._received))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        size = int.from_bytes(self._received[:2], "big")
        if len(self._received) >= 2 and len(self._received) >= 2 + size:
            try:
                answer = dns.read(self._received[2 : 2 + size], self._number, self._name, self.kind)
                self._end(None if answer.truncated else answer)
            except dns.Bad:
                self._end(None)
        elif not data:
            self._end(None)
