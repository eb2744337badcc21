"""A DNS server for tests, over UDP and TCP: what it says of a name is the test's."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

A, CNAME, AAAA = 1, 5, 28

Record = tuple[str, int, str]
"""Owner, type, and an address or a name."""


class Query(NamedTuple):
    """One that came."""

    number: int
    name: str
    kind: int
    tcp: bool


Respond = Callable[[Query], "bytes | list[bytes] | None"]
"""What is sent for a query; None for nothing."""


class Server:
    """It answers at `address` and `port`; `asked` counts names."""

    def __init__(self, respond: Respond, address: str, port: int) -> None:
        self._respond = respond
        self._tcp = socket.create_server((address, port))
        self.address, self.port = self._tcp.getsockname()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((self.address, self.port))
        self.queries: list[Query] = []
        self.sources: list[int] = []
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    @property
    def asked(self) -> Counter[str]:
        return Counter(query.name for query in self.queries)

    def _answer(self, data: bytes, tcp: bool) -> list[bytes]:
        query = parsed(data, tcp)
        self.queries.append(query)
        said = self._respond(query)
        return [] if said is None else [said] if isinstance(said, bytes) else said

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = self._udp.recvfrom(4096)
                if data == b"end":
                    return
                self.sources.append(peer[1])
                for answer in self._answer(data, False):
                    self._udp.sendto(answer, peer)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._tcp.accept()
                with accepted, contextlib.suppress(OSError):
                    data = accepted.recv(4096)
                    if data == b"end":
                        return
                    for answer in self._answer(data[2:], True):
                        accepted.sendall(len(answer).to_bytes(2, "big") + answer)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"end", (self.address, self.port))
        with socket.create_connection((self.address, self.port)) as tcp:
            tcp.sendall(b"end")
        for thread in self._threads:
            thread.join(30)
        self._udp.close()
        self._tcp.close()


def parsed(data: bytes, tcp: bool = False) -> Query:
    """A query as a stub sends it."""
    number, labels, at = struct.unpack_from(">H", data)[0], [], 12
    while size := data[at]:
        labels.append(data[at + 1 : at + 1 + size].decode())
        at += size + 1
    return Query(number, ".".join(labels), struct.unpack_from(">H", data, at + 1)[0], tcp)


def encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def answer(query: Query, records: list[Record], *, code: int = 0, flags: int = 0x8180) -> bytes:
    """A whole answer."""
    out = struct.pack(">6H", query.number, flags | code, 1, len(records), 0, 0)
    out += encoded(query.name) + struct.pack(">2H", query.kind, 1)
    for owner, kind, value in records:
        data = encoded(value) if kind == CNAME else ipaddress.ip_address(value).packed
        out += encoded(owner) + struct.pack(">2HIH", kind, 1, 60, len(data)) + data
    return out


def zone(addresses: Mapping[str, str | list[str]]) -> Respond:
    """Says these addresses, and of any other name that there is none."""

    def respond(query: Query) -> bytes:
        if query.name not in addresses:
            return answer(query, [], code=3)
        known = addresses[query.name]
        listed = [known] if isinstance(known, str) else known
        kinds = [(AAAA if ":" in one else A, one) for one in listed]
        return answer(query, [(query.name, kind, one) for kind, one in kinds if kind == query.kind])

    return respond


@contextlib.contextmanager
def dns(respond: Respond, address: str = "127.9.0.53", port: int = 0) -> Iterator[Server]:
    server = Server(respond, address, port)
    try:
        yield server
    finally:
        server.close()
