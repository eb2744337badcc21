"""A component that is served by a process, and clients of it that say what they are told."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.guests import components

PROGRAM = Path(__file__).with_name("serve_direct.py")
HEAD = b"GET /hello HTTP/1.1\r\nHost: x\r\n"


class Served:
    """A component that is served by a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())
        end = time.monotonic() + 20
        while status(self.get("/hello")) != 200:  # it says its port before it listens
            assert time.monotonic() < end
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def interrupt(self) -> None:
        """As a container is told to end."""
        self._process.terminate()

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait(30)

    def refuses(self) -> bool:
        """Whether it comes to refuse connections."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                self.connect().close()
            except ConnectionRefusedError:
                return True
            time.sleep(0.01)
        return False

    def counts(self) -> dict[str, int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, int] = json.loads(self._process.stdout.readline())
        return found

    def taken(self, requests: int) -> None:
        """Wait until so many requests are being served."""
        end = time.monotonic() + 30
        while (now := self.counts()["requests"]) < requests:
            assert time.monotonic() < end, now
            time.sleep(0.01)

    def settle(self, before: dict[str, int]) -> None:
        """Wait until nothing is counted more often than before; less often what an earlier test had left to go."""
        end = time.monotonic() + 30
        while over := {what: now for what, now in self.counts().items() if now > before[what]}:
            assert time.monotonic() < end, (over, before)
            time.sleep(0.05)

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20, source_address=(source, 0))

    def say(self, data: bytes) -> bytes:
        """All that comes back when this is sent and the client sends no more."""
        with contextlib.suppress(ConnectionError), self.connect() as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            return everything(sock)
        return b""

    def get(self, path: str) -> bytes:
        return self.say(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())


def everything(sock: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            found += part
    return found


@contextlib.contextmanager
def serving(**http: Any) -> Iterator[Served]:
    command = [sys.executable, str(PROGRAM), str(components.web()), json.dumps(http)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield Served(process)
    finally:
        process.kill()
        process.communicate()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def body(answer: bytes) -> bytes:
    head, _, found = answer.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return found
    whole = b""
    while found:
        size, _, found = found.partition(b"\r\n")
        whole, found = whole + found[: int(size, 16)], found[int(size, 16) + 2 :]
    return whole
