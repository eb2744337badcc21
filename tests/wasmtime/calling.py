"""The functions of wasi:sockets of our own world, called as a component calls them; this process is the broker."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from wasmlet_wasmtime.p2 import world
from wasmlet_wasmtime.p2.dialing import Broker
from wasmlet_wasmtime.p2.instances import NOBODY, Failed, Instance
from wasmlet_wasmtime.p2.sockets import datagrams, tcp

from tests.wasmtime.direct_run import Answer, Sockets

OFFERED = (datagrams, tcp)
SECOND = 10**9
"""In nanoseconds, the interface's unit of times."""


class Loopback(Sockets):
    """Opens what it is asked for, at ports that are free."""

    def _at(self, port: int) -> int:
        return 0


class Six(Loopback):
    """The same for IPv6."""

    def _listen(self, port: int, protocol: str) -> Answer:
        made = socket.socket(socket.AF_INET6, self._kind(protocol))
        made.bind(("::1", 0))
        made.setblocking(False)
        four = super()._listen(port, protocol)  # a node may give sockets of both families
        return Answer((*four.fds, made.detach()))

    def _connect(self, host: str, port: int, protocol: str) -> Answer:
        made = socket.socket(socket.AF_INET6, self._kind(protocol))
        try:
            made.connect((host, port))
        except OSError:
            made.close()
            raise
        made.setblocking(False)
        return Answer((made.detach(),))


def has_ipv6() -> bool:
    """Whether this machine has an address of IPv6 to itself."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


class Guest(SimpleNamespace):
    """What those functions ask of an instance."""

    def wait(self, sources: Any) -> Any:
        return Instance.wait(self, sources)  # type: ignore[arg-type]


def guest_of(sockets: Sockets | None) -> Any:
    host = SimpleNamespace(broker=Broker(sockets))
    return Guest(host=host, until=None, waits=NOBODY, check_time=lambda: None)


def call(guest: Any, name: str, *arguments: Any) -> Any:
    """The result, or the error code."""
    try:
        return world.functions[f"wasi:sockets/{name}"](guest, *arguments)
    except Failed as failed:
        return failed.payload


def wait(guest: Any, source: Any) -> None:
    guest.wait([source])


def address(port: int, *parts: int) -> Any:
    return "ipv4", (port, parts or (127, 0, 0, 1))


def six(port: int) -> Any:
    """The address of this machine to itself."""
    return "ipv6", (port, 0, (0,) * 7 + (1,), 0)
