"""The functions of wasi:sockets of our own world, called as a component calls them; this process is the broker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from wasmlet_wasmtime.p2 import datagrams, sockets, world
from wasmlet_wasmtime.p2.dialing import Broker
from wasmlet_wasmtime.p2.instances import Failed, Instance

from tests.wasmtime.direct_run import Sockets

OFFERED = (datagrams, sockets)
SECOND = 10**9
"""In nanoseconds, the interface's unit of times."""


class Loopback(Sockets):
    """Opens what it is asked for, at ports that are free."""

    def _at(self, port: int) -> int:
        return 0


class Guest(SimpleNamespace):
    """What those functions ask of an instance."""

    def wait(self, sources: Any) -> Any:
        return Instance.wait(self, sources)  # type: ignore[arg-type]


def guest_of(sockets: Sockets | None) -> Any:
    host = SimpleNamespace(broker=Broker(sockets))
    return Guest(host=host, until=None, before_wait=lambda: None, check_time=lambda: None)


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
