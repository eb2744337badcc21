"""How much memory large requests take: little, however many come at once."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.wasmtime.serving import Served, everything, serving, status

INSTANCES = 8
SIZE = 2_000_000
MOST = 16 * 1024
"""KiB that all instances may take together for what is on its way, with the guests themselves."""


def most_memory(served: Served) -> int:
    """The most KiB that the process has had so far."""
    text = Path(f"/proc/{served.pid}/status").read_text("ascii")
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1])


def send(sock: socket.socket, path: str) -> None:
    sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n".encode())
    sock.sendall(bytes(SIZE))


def ask(served: Served, path: str) -> bytes:
    with served.connect() as sock:
        sock.settimeout(60)
        sender = threading.Thread(target=send, args=(sock, path))
        sender.start()
        try:
            return everything(sock)
        finally:
            sender.join()


@pytest.mark.parametrize("path", ["/count", "/echo"])
def test_many_large_bodies_take_little_memory(path: str) -> None:
    with serving(seconds=60, concurrency=INSTANCES) as served, ThreadPoolExecutor(INSTANCES) as clients:
        before = most_memory(served)
        answers = [clients.submit(ask, served, path) for _ in range(2 * INSTANCES)]
        assert [status(answer.result()) for answer in answers] == [200] * len(answers)
        assert most_memory(served) - before < MOST


def test_many_large_heads_take_little_memory() -> None:
    large = b"GET /request HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " + b"x" * 60_000 + b"\r\n\r\n"
    with serving(seconds=60, concurrency=INSTANCES) as served, ThreadPoolExecutor(INSTANCES) as clients:
        before = most_memory(served)
        answers = [clients.submit(served.say, large) for _ in range(8 * INSTANCES)]
        assert [status(answer.result()) for answer in answers] == [200] * len(answers)
        assert most_memory(served) - before < 2 * MOST
