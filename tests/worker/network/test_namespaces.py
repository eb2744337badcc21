"""Containers in a network namespace of their pod's own: their sockets are in there, and nowhere else."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest

from tests.runtime.network.spaces import own_namespace
from tests.worker.harness import POD, running
from tests.worker.network.guests import CLASSES, asking, reached
from tests.worker.test_execs import begin
from wasmlet.worker.grants import UDP, Grant, Port, Resolver

ESCAPES = Path(__file__).parents[1] / "escape_engine.py"
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="namespaces are for root")
T = TypeVar("T")


class Namespace(NamedTuple):
    """A network namespace of the test's own, by the thread that is in it."""

    thread: ThreadPoolExecutor
    path: str

    def do(self, work: Callable[[], T]) -> T:
        """What this comes to in there."""
        return self.thread.submit(work).result()


@pytest.fixture
def place() -> Iterator[Namespace]:
    """A network namespace, and a thread in it."""
    with ThreadPoolExecutor(1) as thread:
        space = own_namespace()
        thread.submit(space.__enter__).result()
        try:
            yield Namespace(
                thread, f"/proc/{os.getpid()}/task/{thread.submit(threading.get_native_id).result()}/ns/net"
            )
        finally:
            thread.submit(space.__exit__, None, None, None).result()


@ROOT_ONLY
@CLASSES
def test_sockets_are_in_the_namespace_of_the_pod(
    tmp_path: Path, python: str, place: Namespace, more: dict[str, str]
) -> None:
    with running(tmp_path / "state", python) as shim, socket.create_server((POD, 0)) as outside:
        port, dialled = 8080, outside.getsockname()[1]
        inside = place.do(lambda: socket.create_server((POD, dialled)))
        resolver = Resolver(hosts={"localhost": ("127.0.0.1", "::1"), "other": ("127.0.0.1", "10.1.2.3")})
        grant = Grant(place.path, ("10.9.0.2",), (Port(port),), never=("127.0.0.0/8",), resolver=resolver)
        words = asking(ask="connect", host="other", port=1), asking(ask="connect", host=POD, port=dialled)
        words = (words[0] + asking(ask="connect", host="localhost", port=1), words[1])
        name = shim.run("start", *words[0], *words[1], "serve", "1", "sleep", "1000", network=grant, **more)
        accepted, _ = place.do(inside.accept)
        accepted.sendall(b"inside")
        accepted.close()
        inside.close()
        assert place.do(lambda: reached(("127.0.0.1", port))) == b"x"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
        said = shim.output(name).splitlines()
        assert said[0].startswith(b"EACCES")  # which is not the pod's own alone
        assert said[1].startswith(b"ECONNREFUSED")
        assert said[2] == b"inside"
        own, node = os.readlink(place.path), os.readlink("/proc/self/ns/net")
        guest = shim.running(name)["pid"]
        assert os.readlink(f"/proc/{guest}/ns/net") == (node if more else own)
        assert os.readlink(f"/proc/{shim.broker()}/ns/net") == node


@ROOT_ONLY
def test_an_exec_is_in_the_namespace_of_the_pod(tmp_path: Path, place: Namespace) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000", network=Grant(place.path, ("10.9.0.2",)))
        container = shim.running(name)["pid"]
        _, reader = begin(shim, shim.connection, name, "start", "network", "print", "up", "sleep", "1000")
        with open(reader, "rb") as output:
            assert [output.readline() for _ in range(2)] == [b"None False\n", b"up\n"]
            (pid,) = [pid for pid, what in shim.children().items() if what == "wasmlet-guest" and pid != container]
            assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink(place.path)


def test_a_namespace_that_is_gone_is_named(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        gone = str(tmp_path / "gone")
        record = shim.ended(shim.run("start", network=Grant(gone, ("10.9.0.2",))))
        assert record["reason"] == "StartError"
        assert record["message"] == (
            f"the container cannot be handed to its process: the pod's network namespace {gone} cannot be opened: "
            "No such file or directory"
        )


@ROOT_ONLY
@pytest.mark.parametrize("datagrams", [False, True])
def test_what_a_guest_with_datagrams_may_send(tmp_path: Path, place: Namespace, datagrams: bool) -> None:
    """With a port of UDP it says where it sends, in its pod's own namespace; nothing of TCP is dialled in that way."""
    with running(tmp_path / "state") as shim, place.do(lambda: socket.create_server(("127.0.0.1", 0))) as other:
        shim.engine = ESCAPES
        ports = (Port(8080), *([Port(8080, "", UDP)] if datagrams else []))
        grant = Grant(place.path, ("10.9.0.2",), ports)
        expected = {
            "send from a bound socket": {"done": 3} if datagrams else "EACCES",
            "MSG_FASTOPEN": "EPERM",
            "MSG_FASTOPEN by sendmmsg": "EPERM",
            "pass the control socket on": {"done": None} if datagrams else "EPERM",  # nobody takes it
        }
        found = {}
        for deed in expected:
            about = {"port": 8080, "other": other.getsockname(), "granted": ["127.0.0.1", 9]}
            name = shim.run(deed, json.dumps(about), network=grant)
            shim.ended(name)
            found[deed] = json.loads(shim.output(name))
        assert found == expected
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()
