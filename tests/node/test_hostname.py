"""A Hostname is told only where DNS has the node's address for it: what one machine makes of a name is no matter."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest

from wasmlet.node import hostname
from wasmlet.node.hostname import names_this_node

NAME, IP, IP6 = "box.example.test", "192.0.2.7", "2001:db8::7"
PATIENCE = 60.0
"""Seconds: no answer comes too late because the machine is busy."""
ALIAS = b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, 2) + b"\xc0\x0c"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostname, "RESOLVE_SECONDS", PATIENCE)


def record(address: str) -> bytes:
    kind, family = (28, socket.AF_INET6) if ":" in address else (1, socket.AF_INET)
    raw = socket.inet_pton(family, address)
    return b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(raw)) + raw


@attrs.define
class Server(asyncio.DatagramProtocol):
    """A DNS server that knows one name, and sends what a test makes of its answers."""

    records: list[bytes]
    sends: Callable[[bytes], Sequence[bytes]]
    asked: list[bytes] = attrs.field(factory=list)
    transport: asyncio.DatagramTransport = attrs.field(init=False)

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(data[12:])
        known = data[12:].startswith(b"\3box\7example\4test\0")
        head = data[:2] + struct.pack("!5H", 0x8180 if known else 0x8183, 1, len(self.records) if known else 0, 0, 0)
        for datagram in self.sends(head + data[12:] + b"".join(self.records if known else [])):
            self.transport.sendto(datagram, addr)


@asynccontextmanager
async def serving(
    monkeypatch: pytest.MonkeyPatch,
    *records: bytes,
    sends: Callable[[bytes], Sequence[bytes]] = lambda answer: [answer],
) -> AsyncIterator[Server]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Server(list(records), sends), local_addr=("127.0.0.1", 0)
    )
    monkeypatch.setattr(hostname, "PORT", transport.get_extra_info("sockname")[1])
    monkeypatch.setattr(hostname, "_servers", lambda: ["127.0.0.1"])
    try:
        yield server
    finally:
        transport.close()


@pytest.mark.parametrize(
    ("records", "ip", "told"),
    [
        ([record(IP)], IP, True),
        ([ALIAS, record("192.0.2.8"), record(IP)], IP, True),
        ([record(IP6)], IP6, True),
        ([record("192.0.2.8")], IP, False),
        ([], IP, False),
    ],
    ids=["it", "behind an alias", "IPv6", "another", "none"],
)
async def test_it_is_told_where_dns_has_the_address(
    monkeypatch: pytest.MonkeyPatch, records: list[bytes], ip: str, told: bool
) -> None:
    async with serving(monkeypatch, *records) as server:
        assert await names_this_node(NAME, ip) is told
        assert await names_this_node(f"{NAME}.", ip) is told
        assert not await names_this_node("other.example.test", ip)
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    "name", ["box", "box.", "localhost", "a..b", f"{'x' * 64}.test"], ids=["label", "root", "local", "empty", "long"]
)
async def test_names_that_nobody_else_can_know_are_not_asked_for(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    async with serving(monkeypatch, record(IP)) as server:
        assert not await names_this_node(name, IP)
        assert server.asked == []


async def test_an_address_of_the_machine_alone_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch, record("127.0.0.1")) as server:
        assert not await names_this_node(NAME, "127.0.0.1")
        assert server.asked == []


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer[:-2],
        lambda answer: answer[:12] + answer[12:].replace(b"box", b"fox"),
        lambda answer: answer[:6] + b"\xff\xff" + answer[8:],
    ],
    ids=["cut", "another name", "too few records"],
)
async def test_answers_that_are_none(monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes]) -> None:
    async with serving(monkeypatch, record(IP), sends=lambda answer: [change(answer)]) as server:
        assert not await names_this_node(NAME, IP)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    "change",
    [lambda answer: answer[:11], lambda answer: bytes([answer[0] ^ 1]) + answer[1:]],
    ids=["no head", "not asked"],
)
async def test_a_datagram_that_answers_another_question_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes]
) -> None:
    async with serving(monkeypatch, record(IP), sends=lambda answer: [change(answer), answer]):
        assert await names_this_node(NAME, IP)


async def test_silence_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostname, "RESOLVE_SECONDS", 0.05)
    async with serving(monkeypatch, record(IP), sends=lambda answer: []):
        assert not await names_this_node(NAME, IP)


async def test_a_server_that_is_not_there_or_is_silent_keeps_no_other_from_being_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(monkeypatch, record(IP)) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.2", hostname.PORT))
            monkeypatch.setattr(hostname, "_servers", lambda: ["127.0.0.2", "127.0.0.3", "127.0.0.1"])
            assert await names_this_node(NAME, IP)
        assert len(server.asked) == 1


def test_servers_on_this_machine_are_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They answer for its own name, and from its hosts file; systemd's own names those that it asks."""
    files = tmp_path / "resolv.conf", tmp_path / "upstream.conf", tmp_path / "none"
    monkeypatch.setattr(hostname, "RESOLVERS", files)
    files[0].write_text("search example.test\nnameserver 127.0.0.53\n; a remark\nnameserver ::1\nnameserver\n")
    assert hostname._servers() == []
    files[1].write_text("nameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver what\nnameserver fe80::1%eth0\n")
    assert hostname._servers() == ["192.0.2.53", "2001:db8::53", "fe80::1%eth0"]
