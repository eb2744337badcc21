"""Finds out whether other machines can resolve the node's name. An API server dials a Node's Hostname address first.

This machine may resolve the name although others cannot: it has its own hosts file, its own search domains, and the
answers of systemd for the machine's own name (nss-myhostname, the resolver at 127.0.0.53). So DNS servers that are not
on this machine are asked for the whole name. If there is no such server, or the name has only one label, the answer is
no. The Node then has no Hostname address; its InternalIP, which it always has, is enough.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from wasmlet.concurrency import in_thread

RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""Where DNS servers are named; the second has those that systemd's own one asks."""
PORT = 53
RESOLVE_SECONDS = 2.0
_MOST_BYTES = 2**20
_MOST_SERVERS = 3  # resolv.conf(5), MAXNS
_HEAD = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_A, _AAAA, _IN = 1, 28, 1
_ANSWERS, _RECURSE = 0x8000, 0x0100


async def names_this_node(name: str, ip: str) -> bool:
    """Whether a DNS server outside this machine says, within `RESOLVE_SECONDS`, that the name has the address."""
    address = ipaddress.ip_address(ip)
    if "." not in name.rstrip(".") or address.is_loopback:
        return False
    servers = await in_thread(_servers)
    asked = [asyncio.create_task(_ask(server, name, address.version)) for server in servers]
    try:
        for answer in asyncio.as_completed(asked, timeout=RESOLVE_SECONDS):
            with suppress(OSError, ValueError, struct.error, IndexError):  # another server may have an answer
                if address in await answer:
                    return True
    except TimeoutError:
        pass
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    return False


def _servers() -> list[str]:
    """The DNS servers of this machine that are not on it; blocks."""
    found: dict[str, None] = {}
    for path in RESOLVERS:
        try:
            with path.open("rb") as file:
                text = file.read(_MOST_BYTES).decode(errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            key, *values = line.split()[:2] or ("",)
            with suppress(ValueError):
                if key == "nameserver" and values and not ipaddress.ip_address(values[0].partition("%")[0]).is_loopback:
                    found[values[0]] = None
    return list(found)[:_MOST_SERVERS]


async def _ask(server: str, name: str, version: int) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses, of that version of IP, that a server has for a name.

    Raises:
        OSError: the server cannot be asked.
        ValueError, struct.error, IndexError: the name or the answer is not valid.
    """
    number, kind = secrets.randbelow(2**16), _A if version == 4 else _AAAA
    question = _question(name) + struct.pack("!HH", kind, _IN)
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Answer(answer, number), remote_addr=(server, PORT))
    try:
        transport.sendto(_HEAD.pack(number, _RECURSE, 1, 0, 0, 0) + question)
        return set(_addresses(await answer, question, kind))
    finally:
        transport.close()


class _Answer(asyncio.DatagramProtocol):
    """Waits for the first datagram that answers the question of that number."""

    def __init__(self, answer: asyncio.Future[bytes], number: int) -> None:
        self._answer = answer
        self._number = number

    def datagram_received(self, data: bytes, addr: object) -> None:
        if len(data) >= _HEAD.size and not self._answer.done():
            number, flags, *_ = _HEAD.unpack_from(data)
            if number == self._number and flags & _ANSWERS:
                self._answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)


def _question(name: str) -> bytes:
    """A name as DNS writes it: labels with their lengths.

    Raises:
        ValueError: DNS cannot have such a name.
    """
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".")]
    if not all(0 < len(label) < 64 for label in labels):
        raise ValueError(f"expected labels of 1 to 63 characters, found {name[:80]!r}")
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _addresses(data: bytes, question: bytes, kind: int) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses in an answer, including those that an alias leads to.

    Raises:
        ValueError, struct.error, IndexError: it is not a valid answer to this question.
    """
    _, _, questions, answers, *_ = _HEAD.unpack_from(data)
    at = _HEAD.size + len(question)
    if questions != 1 or data[_HEAD.size : at].lower() != question.lower():
        raise ValueError("expected an answer to the question that was asked, found another")
    for _ in range(answers):
        at = _behind_name(data, at)
        found, group, _, size = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if (found, group) == (kind, _IN):
            yield ipaddress.ip_address(data[at : at + size])
        at += size


def _behind_name(data: bytes, at: int) -> int:
    """The position after the name that begins at `at`. An empty label or a reference to an earlier name ends a name."""
    while (length := data[at]) and length < 0xC0:
        at += length + 1
    return at + (2 if length else 1)
