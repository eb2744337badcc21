"""`poll_oneoff` of a guest with sockets, called as a guest calls it."""

from __future__ import annotations

import socket
import struct
import time
from types import SimpleNamespace
from typing import Any

import pytest
from wasmlet_wasmtime import polling
from wasmlet_wasmtime.sockets import STREAM, SUCCESS, Interrupted, Network, Socket

CLOCK, READ = 0, 1
MONOTONIC = 1
EVENTS, STORED, SIZE = 64, 192, 256
EVENT = 32
FOREVER = 2**64 - 1
UNTOUCHED = b"\xaa"


def network_of(subscription: bytes) -> Network:
    """A guest whose memory has one subscription at its beginning."""
    made = Network(SimpleNamespace())  # type: ignore[arg-type]
    made.memory, made.size = memoryview(bytearray(UNTOUCHED * SIZE)), SIZE
    made.write(0, subscription)
    return made


def poll(network: Network) -> int:
    return polling.poll_oneoff(network, 0, EVENTS, 1, STORED)


def test_a_listener_that_cannot_listen_is_one_event() -> None:
    """What is behind the room for one event is the guest's own."""
    with socket.socket() as first, socket.socket() as second:
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())
        first.listen()
        network = network_of(struct.pack("<QB7xI28x", 7, READ, 3))
        network.sockets[3] = Socket(STREAM, (second.fileno(),), first.getsockname()[1])
        assert poll(network) == SUCCESS
    assert network.get(STORED) == 1
    user, error, kind = struct.unpack_from("<QHB", network.memory, EVENTS)
    assert (user, kind) == (7, READ)
    assert error != SUCCESS
    assert bytes(network.memory[EVENTS + EVENT : STORED]) == UNTOUCHED * (STORED - EVENTS - EVENT)


def test_a_sleep_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> Any:
        slept.append(seconds)
        raise Interrupted

    clocks = SimpleNamespace(monotonic_ns=time.monotonic_ns, time_ns=time.time_ns, sleep=sleep)
    monkeypatch.setattr(polling, "time", clocks)
    with pytest.raises(Interrupted):
        poll(network_of(struct.pack("<QB7xI4xQQH6x", 7, CLOCK, MONOTONIC, FOREVER, 0, 0)))
    assert slept[0] * 1e9 < 2**63  # which is as long as the system can wait
