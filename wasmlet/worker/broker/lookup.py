"""Looking up a name as a pod does: its resolver's servers, one after the other, for each name that it may stand for."""

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
"""How long all of it may take."""
LAG_SECONDS = 0.5
"""How long the addresses of one family wait for those of the other one."""
_MAX_STRAYS = 32
"""Packets that are no answer, until a server is taken for one that gives none."""
_MAX_TIMEOUT, _MAX_ATTEMPTS = 30.0, 5
_PORT = 53
_LONGEST = 65535


class Found(NamedTuple):
    """What came of it: the addresses of a name; or none, and why."""

    name: Name | None
    addresses: tuple[Address, ...]
    error: int = 0
    why: str = ""


class Servers(NamedTuple):
    """Who is asked, and how.

    Attributes:
        make: makes a socket of this kind to be connected to this address; may raise `OSError`.
        kinds: of records that are of use to the pod.
        port: of every server.
    """

    make: Callable[[str, int], socket.socket]
    addresses: Sequence[str]
    kinds: Sequence[int]
    timeout: float
    attempts: int
    port: int = _PORT


class Lookup:
    """One of them. Begin it with `start`; `done` is called once."""

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
        """What a server says; None where it has not answered, or failed."""
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
        """All that this server will say has been said."""
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
    """One question to one server, over UDP, and over TCP where the answer does not fit."""

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
        """Let go of everything."""
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
        """Connect, so that the kernel drops what others send; from a port that it chooses at random."""
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
        """Not at once: whoever began it does not expect that."""
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
