"""wasi:sockets of our own world: TCP and names, over a broker, as a component calls them; what it is refused."""

from __future__ import annotations

import select
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wasmlet_wasmtime.p2 import sockets, world
from wasmlet_wasmtime.p2.dialing import Asked, Broker
from wasmlet_wasmtime.p2.instances import Failed, Instance

sys.path.insert(0, str(Path(__file__).parent))

from direct_run import Sockets

from tests.descriptors import open_descriptors


class Loopback(Sockets):
    """Opens what it is asked for, at ports that are free."""

    def _at(self, port: int) -> int:
        return 0


@pytest.fixture
def guest() -> Any:
    host = SimpleNamespace(broker=Broker(Loopback([8080])))
    return SimpleNamespace(host=host, until=None, before_wait=lambda: None, check_time=lambda: None)


def call(guest: Any, name: str, *arguments: Any) -> Any:
    """The result, or the error code."""
    try:
        return world.functions[f"wasi:sockets/{name}"](guest, *arguments)
    except Failed as failed:
        return failed.payload


def wait(guest: Any, source: Any) -> None:
    Instance.wait(guest, [source])


def tcp(name: str) -> str:
    return f"tcp.[method]tcp-socket.{name}"


def address(port: int, *parts: int) -> Any:
    return "ipv4", (port, parts or (127, 0, 0, 1))


def test_listening_and_dialling(guest: Any) -> None:
    before = open_descriptors()
    network = call(guest, "instance-network.instance-network")
    listener = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
    assert call(guest, tcp("start-listen"), listener) == "invalid-state"
    assert call(guest, tcp("start-bind"), listener, network, address(8080)) is None
    assert call(guest, tcp("finish-bind"), listener) is None
    assert call(guest, tcp("start-listen"), listener) is None
    wait(guest, listener)
    assert call(guest, tcp("finish-listen"), listener) is None
    assert call(guest, tcp("is-listening"), listener) is True
    assert call(guest, tcp("accept"), listener) == "would-block"
    _, (port, parts) = call(guest, tcp("local-address"), listener)
    assert parts == (127, 0, 0, 1)

    client = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
    assert call(guest, tcp("finish-connect"), client) == "not-in-progress"
    assert call(guest, tcp("start-connect"), client, network, address(port)) is None
    wait(guest, client)
    incoming, outgoing = call(guest, tcp("finish-connect"), client)
    wait(guest, listener)
    accepted, server_in, server_out = call(guest, tcp("accept"), listener)
    assert call(guest, tcp("remote-address"), accepted) == call(guest, tcp("local-address"), client)
    assert server_in.read(10) == b""
    outgoing.write(b"hello")
    wait(guest, server_in)
    assert server_in.read(10) == b"hello"
    server_out.write(b"x" * 1000)
    assert server_out.drained()
    assert call(guest, tcp("shutdown"), accepted, "send") is None
    got = b""
    while len(got) < 1000:
        wait(guest, incoming)
        got += incoming.read(4096)
    assert got == b"x" * 1000
    wait(guest, incoming)
    with pytest.raises(Failed, match="closed"):
        incoming.read(1)
    for one in (incoming, outgoing, client, server_in, server_out, accepted, listener):
        one.close()
    assert open_descriptors() <= before


def test_what_is_refused(guest: Any) -> None:
    before = open_descriptors()
    network = call(guest, "instance-network.instance-network")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        free = closed.getsockname()[1]
    for where, code in ((address(80, 10, 9, 9, 9), "access-denied"), (address(free), "connection-refused")):
        client = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
        assert call(guest, tcp("start-connect"), client, network, where) is None
        wait(guest, client)
        assert call(guest, tcp("finish-connect"), client) == code
        assert call(guest, tcp("start-connect"), client, network, where) == "invalid-state"
        client.close()
    listener = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
    call(guest, tcp("start-bind"), listener, network, address(1))
    call(guest, tcp("finish-bind"), listener)
    call(guest, tcp("start-listen"), listener)
    wait(guest, listener)
    assert call(guest, tcp("finish-listen"), listener) == "access-denied"
    six = call(guest, "tcp-create-socket.create-tcp-socket", "ipv6")
    assert call(guest, tcp("start-connect"), six, network, address(80)) == "invalid-argument"
    assert call(guest, tcp("start-connect"), six, network, ("ipv6", (0, 0, (0,) * 7 + (1,), 0))) == "invalid-argument"
    assert call(guest, tcp("set-keep-alive-count"), six, 0) == "invalid-argument"
    assert call(guest, "udp-create-socket.create-udp-socket", "ipv4") == "not-supported"
    assert open_descriptors() <= before


def test_a_dial_that_is_given_up_leaves_nothing(guest: Any) -> None:
    before = open_descriptors()
    with socket.create_server(("127.0.0.1", 0)) as server:
        network = call(guest, "instance-network.instance-network")
        client = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
        call(guest, tcp("start-connect"), client, network, address(server.getsockname()[1]))
        wait(guest, client)
        client.close()
    assert open_descriptors() <= before


def test_names(guest: Any) -> None:
    network = call(guest, "instance-network.instance-network")
    lookup = "ip-name-lookup.[method]resolve-address-stream.resolve-next-address"
    found = call(guest, "ip-name-lookup.resolve-addresses", network, "known.example")
    wait(guest, found)
    assert call(guest, lookup, found) == ("ipv4", (127, 0, 0, 1))
    assert call(guest, lookup, found) == ("ipv6", (0, 0, 0, 0, 0, 0, 0, 1))
    assert call(guest, lookup, found) is None
    found.close()
    unknown = call(guest, "ip-name-lookup.resolve-addresses", network, "unknown.example")
    wait(guest, unknown)
    assert call(guest, lookup, unknown) == "name-unresolvable"
    unknown.close()
    assert call(guest, "ip-name-lookup.resolve-addresses", network, "") == "invalid-argument"


def test_answers_for_one_thread_that_another_one_takes(guest: Any) -> None:
    """Whoever looks first takes all that has come, and wakes the others, whatever they wait for."""
    broker = guest.host.broker
    asked = [Asked(broker, "resolve", name="known.example") for _ in range(8)]
    woken: list[int] = []

    def look(place: int) -> None:
        while asked[place].answer() is None:
            poll = select.poll()
            for descriptor, events in asked[place].polls():
                poll.register(descriptor, events)
            assert poll.poll(10_000)
        woken.append(place)

    threads = [threading.Thread(target=look, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(woken) == list(range(8))
    for one in asked:
        one.drop()


def test_without_a_network_everything_is_denied() -> None:
    guest: Any = SimpleNamespace(host=SimpleNamespace(broker=Broker(None)))
    client = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
    call(guest, tcp("start-connect"), client, sockets.Network(), address(80))
    assert call(guest, tcp("finish-connect"), client) == "access-denied"
