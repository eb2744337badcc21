"""A broker under test, without a shim: `with broker(...) as it: container = it.add(grant)`."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.shared.descriptors import open_descriptors
from tests.worker.harness import PATIENCE, WORKER
from wasmlet.worker import wire
from wasmlet.worker.grants import Grant
from wasmlet.worker.guest.sockets import Answer, Sockets


class Container:
    """The guest's side of a control socket."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.sockets = Sockets(os.dup(control.fileno()), {})

    def ask(self, operation: str, **fields: Any) -> Answer:
        return self.sockets.ask(operation, **fields)

    def error(self, operation: str, **fields: Any) -> str:
        """The name of the errno with which this is refused; "" where it is done."""
        answer = self.ask(operation, **fields)
        wire.close(answer.fds)
        return errno.errorcode[answer.error] if answer.error else ""

    def raw(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(self.control, [packet], list(descriptors))

    def next(self) -> dict[str, Any]:
        """The next packet, as it is; its descriptors are closed."""
        assert select.select([self.control], [], [], PATIENCE)[0], "the broker has not answered"
        data, descriptors, _, _ = socket.recv_fds(self.control, 4096, 16)
        wire.close(descriptors)
        if not data:
            raise EOFError("the broker has hung up")
        message: dict[str, Any] = json.loads(data)
        return message

    def close(self) -> None:
        self.sockets.close()
        self.control.close()


class BrokerProcess:
    """One broker."""

    def __init__(self, python: str, dns_port: int) -> None:
        self._python, self._dns_port = python, dns_port
        self._containers: dict[str, tuple[socket.socket, Grant, Container]] = {}
        self.refused: list[tuple[str, str]] = []
        self._start()

    def _start(self) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(PATIENCE)
        with theirs:
            self.process = subprocess.Popen(
                [self._python, "-I", "-S", str(WORKER), "broker", str(os.getpid()), str(self._dns_port)],
                stdin=theirs.fileno(),
            )
        assert self._next() == {"ready": True}

    def _next(self) -> dict[str, Any]:
        received = wire.receive(self.channel)
        assert received is not None, "the broker has left"
        return received[0]

    @property
    def pid(self) -> int:
        return self.process.pid

    def add(self, grant: Grant, namespace: int = -1, datagrams: bool = True) -> Container:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        name = f"container-{len(self._containers)}"
        self._give(name, theirs, grant, namespace, datagrams=datagrams)
        container = Container(ours)
        self._containers[name] = theirs, grant, container
        return container

    def _give(self, name: str, theirs: socket.socket, grant: Grant, namespace: int = -1, **more: Any) -> None:
        message = {"add": name, "grant": grant.as_message(), **more}
        given = (theirs.fileno(), namespace) if namespace >= 0 else (theirs.fileno(),)
        wire.send(self.channel, wire.pack(message), given)

    def remove(self, container: Container) -> None:
        for name, (theirs, _, known) in self._containers.items():
            if known is container:
                theirs.close()
                wire.send(self.channel, wire.pack({"remove": name}))

    def say(self, message: dict[str, Any]) -> None:
        """What a shim says that brings no descriptors."""
        wire.send(self.channel, wire.pack(message))

    def hear_refused(self) -> str:
        """What it says next of a dial that was refused."""
        return str(self._next()["what"])

    def replace(self) -> None:
        """Another broker in place of this one, which is killed; it is told the same."""
        self.kill()
        self._start()
        for name, (theirs, grant, _) in self._containers.items():
            self._give(name, theirs, grant, again=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()

    def descriptors(self) -> int:
        """How many it has open."""
        return open_descriptors(self.pid)

    def memory(self) -> int:
        """Bytes that are its own."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text("ascii")
        return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Private_"))

    def close(self) -> None:
        for theirs, _, container in self._containers.values():
            theirs.close()
            container.close()
        self.channel.close()
        try:
            assert self.process.wait(PATIENCE) == 0
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            raise


@contextlib.contextmanager
def broker(python: str = sys.executable, dns_port: int = 53) -> Iterator[BrokerProcess]:
    """A broker that has ended at the end."""
    it = BrokerProcess(python, dns_port)
    try:
        yield it
    finally:
        it.close()
