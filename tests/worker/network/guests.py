"""Guests of tests that have a network: where they are reached, and what they are told to ask."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from tests.worker.harness import PATIENCE, POD

CLASSES = pytest.mark.parametrize("more", [{}, {"dense": "namespace"}], ids=["process", "dense"])


def free_port() -> int:
    """A port of `POD` that nobody has."""
    with socket.create_server((POD, 0)) as sock:
        return int(sock.getsockname()[1])


def reached(address: tuple[str, int]) -> bytes:
    """What whoever listens there says first."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection(address, PATIENCE) as sock:
                return sock.recv(100)
        except ConnectionRefusedError:
            assert time.monotonic() < until, f"nobody listens at {address}"
            time.sleep(0.01)


def asking(**request: Any) -> tuple[str, str]:
    """Instructions that have a guest ask the broker for this."""
    return "ask", json.dumps(request)
