"""Guests with a port of UDP, in a network namespace, under a shim and its broker, confined."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from wasmlet_wasmtime import WasmtimeEngine, guest

from tests.guests import build, components
from tests.worker.harness import PATIENCE, running
from tests.worker.network.test_namespaces import Namespace, place
from wasmlet.worker.grants import UDP, Grant, Port, Rule

__all__ = ["place"]
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="namespaces are for root")


def ask(question: bytes) -> bytes:
    """What comes back from the port, once somebody is there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", 5353))
        sock.send(question)
        return sock.recv(100)


@pytest.mark.parametrize("kind", ["component", "WasmEdge's functions"])
def test_it_answers_whoever_asks(
    tmp_path: Path, place: Namespace, compile_guest: Callable[..., None], kind: str
) -> None:
    component = kind == "component"
    module = components.net() if component else build("edge", compile_guest)
    compiled = guest.compile(module.read_bytes())
    with running(tmp_path / "state") as shim:
        shim.engine = WasmtimeEngine().guest_module
        grant = Grant(place.path, ("10.9.0.2",), (Port(5353, "dns", UDP),), (Rule(cidr="127.0.0.1/32"),))
        name = shim.run(module.stem, "answer", "5353", network=grant, compiled=compiled)
        until = time.monotonic() + PATIENCE
        while b"listening" not in shim.log(name):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert place.do(lambda: ask(b"is anybody there?")) == b"is anybody there?"
        assert shim.ended(name)["exit_code"] == 0
