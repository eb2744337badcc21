"""Real servers for capabilities: redis and NATS, at an address that is given."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

from tests.conftest import need

SECONDS = 30.0


@attrs.frozen
class Server:
    """A server that answers."""

    port: int


def free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def redis_server(
    directory: Path, host: str = "127.0.0.1", password: str = "", tls: tuple[Path, Path] | None = None
) -> Iterator[Server]:
    """A redis that keeps nothing; by TLS where it has files of a certificate and a key."""
    port = free_port(host)
    words = ["--bind", host, "--save", "", "--appendonly", "no", "--dir", str(directory)]
    words += ["--requirepass", password] if password else []
    if tls is None:
        words += ["--port", str(port)]
    else:
        words += ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
        words += ["--tls-cert-file", str(tls[0]), "--tls-key-file", str(tls[1])]
    with _running("redis-server", *words, at=(host, port)):
        yield Server(port)


@contextlib.contextmanager
def nats_server(host: str = "127.0.0.1", tls: tuple[Path, Path] | None = None, token: str = "") -> Iterator[Server]:
    """A NATS server; by TLS where it has files of a certificate and a key."""
    port = free_port(host)
    words = ["-a", host, "-p", str(port), *(["--auth", token] if token else [])]
    words += ["--tls", "--tlscert", str(tls[0]), "--tlskey", str(tls[1])] if tls else []
    with _running("nats-server", *words, at=(host, port)):
        yield Server(port)


@contextlib.contextmanager
def _running(name: str, *words: str, at: tuple[str, int]) -> Iterator[None]:
    program = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin:/bin")
    if program is None:
        need(name, f"apt install {name}")
    process = subprocess.Popen(
        [str(program), *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + SECONDS
        while True:
            try:
                socket.create_connection(at, timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, f"{name} has ended"
                assert time.monotonic() < until, f"{name} does not answer"
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()
