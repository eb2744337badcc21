"""Run one guest with sockets in a process of its own, without a shim: `python direct_run.py WASM JSON`.

The broker is this process itself: it binds the ports that it is told, and dials 127.0.0.0/8. JSON is an object
with `args`, `env`, `mounts` (path of the host, path of the guest), `ports` and `class` (`process` or `dense`); what
comes on standard input of a dense one interrupts it. The last line of the output is how the guest ended.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple


class Answer(NamedTuple):
    fds: tuple[int, ...] = ()
    fields: Mapping[str, Any] = {}
    error: int = 0
    why: str = ""


class Port(NamedTuple):
    number: int
    name: str = ""
    protocol: str = "TCP"


class Sockets:
    """As `spec["sockets"]`: answers are there at the second look, so that somebody has to wait for them."""

    addresses = ("127.0.0.1",)

    def __init__(self, ports: list[int]) -> None:
        self.listeners = tuple(map(Port, ports))
        self._event = os.eventfd(0, os.EFD_NONBLOCK)
        self._answers: dict[int, Answer] = {}
        self._number = 0

    def fileno(self) -> int:
        return self._event

    def begin(self, operation: str, **fields: Any) -> int:
        self._number += 1
        number = self._number

        def do() -> None:
            try:
                self._answers[number] = getattr(self, f"_{operation}")(**fields)
            except OSError as error:
                self._answers[number] = Answer(error=error.errno or errno.EIO, why=str(error.strerror))
            os.eventfd_write(self._event, 1)

        threading.Timer((fields.get("port") == 4242 and 0.3) or 0.0, do).start()
        return number

    def take(self, number: int) -> Answer | None:
        answer = self._answers.pop(number, None)
        if answer is not None and not self._answers:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._event)
        return answer

    def drop(self, number: int) -> None:
        for descriptor in self._answers.pop(number, Answer()).fds:
            os.close(descriptor)

    def ask(self, operation: str, **fields: Any) -> Answer:
        number = self.begin(operation, **fields)
        while (answer := self.take(number)) is None:
            self.wait(self.fileno())
        return answer

    def open_listeners(self) -> list[tuple[int, ...]]:
        answers = [self.ask("listen", port=port.number, protocol=port.protocol) for port in self.listeners]
        if any(answer.error for answer in answers):
            raise ValueError(f"cannot listen: {answers}")
        return [answer.fds for answer in answers]

    def _kind(self, protocol: str) -> int:
        return socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM

    def _at(self, port: int) -> int:
        """The port of this machine that stands for the guest's."""
        return port

    def _listen(self, port: int, protocol: str) -> Answer:
        if port not in [one.number for one in self.listeners]:
            return Answer(error=errno.EACCES, why="no grant")
        made = socket.socket(socket.AF_INET, self._kind(protocol))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", self._at(port)))
        if protocol == "TCP":
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        return Answer((made.detach(),))

    def _connect(self, host: str, port: int, protocol: str) -> Answer:
        if not host.startswith("127."):
            return Answer(error=errno.EACCES, why="no grant")
        made = socket.socket(socket.AF_INET, self._kind(protocol))
        try:
            made.connect((host, port))
        except OSError:
            made.close()
            raise
        if protocol == "TCP":
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        return Answer((made.detach(),), {"local": ["127.0.0.1", 1], "peer": [host, port]})

    def _resolve(self, name: str) -> Answer:
        if name == "known.example":
            return Answer(fields={"addresses": ["127.0.0.1", "::1"]})
        return Answer(error=errno.ENOENT, why="no such name")


def main() -> None:
    wasm, text = sys.argv[1:3]
    wanted = json.loads(text)
    mounts = [{"directory": host, "path": path, "read_only": False} for host, path in wanted.get("mounts", ())]
    mounts = mounts or [{"directory": tempfile.mkdtemp(), "path": "/empty", "read_only": True}]
    spec = {"args": ["guest", *wanted.get("args", ())], "env": wanted.get("env", []), "mounts": mounts}
    spec["memory"] = wanted.get("memory")
    if "ports" in wanted:
        spec["sockets"] = Sockets(wanted["ports"])
        spec["env"] = [*spec["env"], ["LISTEN_FDS", str(len(wanted["ports"]))]]
    from wasmlet_wasmtime import dense, guest

    engine: Any = dense if wanted.get("class") == "dense" else guest
    with open(wasm, "rb") as file:
        compiled = engine.compile(file.read())
    with tempfile.NamedTemporaryFile() as module:
        module.write(compiled)
        module.flush()
        prepared = engine.prepare()
        if engine is guest:
            ended = guest.run(prepared, spec, module.name, lambda: print("started", flush=True))
        else:
            one = dense.Guest(prepared, dense.load(prepared, module.name), spec, "/dev/fd/1", "/dev/fd/2")
            threading.Thread(target=lambda: (sys.stdin.readline(), one.interrupt()), daemon=True).start()
            ended = one.run(lambda address: print("started", flush=True))
    sys.stdout.flush()
    os.write(1, f"\nended {json.dumps(list(ended))}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main()
