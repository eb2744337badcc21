"""Real kubectl through the control plane to a node: logs, exec, attach and port-forward, by SPDY and by websockets.

Each test runs in every way that bytes can take: SPDY end to end, websockets that the control plane translates, and
websockets that it hands on to the node. GET is what kubectl upgrades to a websocket, POST to SPDY.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import re
import signal
import struct
import termios
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
from aiohttp import web

import wasmlet
from tests.controlplane.client import Api, Kubectl, open_api, pod
from wasmlet.controlplane.faults import Proceed, Rule
from wasmlet.controlplane.kubelets.streams import Mode
from wasmlet.provider import Provider
from wasmlet.testing import ControlPlane, ReferenceProvider

SECONDS = 60
WAYS: dict[str, tuple[Mode, bool]] = {
    "spdy": ("translate", False),
    "translated": ("translate", True),
    "websocket": ("declared", True),
}
PORTS = [{"containerPort": 8080}]
DATA = random.Random(4).randbytes(3 * 2**20)


class Nothing:
    """A fault that is none: it counts."""

    async def apply(self, rule: Rule, request: web.BaseRequest, proceed: Proceed) -> web.StreamResponse:
        return await proceed()


@attrs.frozen
class Terminal:
    """The side of a pseudo-terminal on which a user sits."""

    descriptor: int
    _came: asyncio.Queue[bytes] = attrs.field(factory=asyncio.Queue)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self) -> None:
        try:
            self._came.put_nowait(os.read(self.descriptor, 4096))
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: nobody has the other side any more
                raise
            asyncio.get_running_loop().remove_reader(self.descriptor)
            self._came.put_nowait(b"")

    async def until(self, text: bytes) -> bytes:
        """What is shown, as soon as that text is in it."""
        shown = b""
        async with asyncio.timeout(SECONDS):
            while text not in shown:
                piece = await self._came.get()
                assert piece, f"the terminal ended without {text!r}: {shown!r}"
                shown += piece
        return shown


@attrs.frozen
class Session:
    """A node with a pod that runs, and kubectl set to one way of reaching it."""

    kubectl: Kubectl
    plane: ControlPlane
    api: Api
    provider: ReferenceProvider
    websockets: bool

    @property
    def environment(self) -> dict[str, str]:
        way = "true" if self.websockets else "false"
        return {
            "KUBECONFIG": str(self.kubectl.kubeconfig),
            "HOME": str(self.kubectl.home),
            "PATH": "/usr/bin:/bin",
            "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": way,
            "KUBECTL_PORT_FORWARD_WEBSOCKETS": way,
        }

    @asynccontextmanager
    async def start(
        self, *arguments: str, stdin: int = asyncio.subprocess.PIPE
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """kubectl, ended at the end if it has not ended by itself."""
        process = await asyncio.create_subprocess_exec(
            self.kubectl.program,
            *arguments,
            env=self.environment,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def run(self, *arguments: str, stdin: bytes = b"") -> tuple[int | None, bytes, bytes]:
        """Exit code, stdout, stderr."""
        async with self.start(*arguments) as process, asyncio.timeout(SECONDS):
            out, err = await process.communicate(stdin)
        return process.returncode, out, err

    @asynccontextmanager
    async def terminal(self, *arguments: str) -> AsyncIterator[tuple[Terminal, asyncio.subprocess.Process]]:
        """kubectl at a terminal of 80 columns and 24 rows."""
        ours, theirs = os.openpty()
        tty.setraw(theirs)  # it shows nothing by itself
        terminal = Terminal(ours)
        terminal.resize(80, 24)
        loop = asyncio.get_running_loop()
        try:
            process = await asyncio.create_subprocess_exec(
                self.kubectl.program,
                *arguments,
                env=self.environment,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        loop.add_reader(ours, terminal.read)
        try:
            yield terminal, process
        finally:
            loop.remove_reader(ours)
            os.close(ours)
            if process.returncode is None:
                process.kill()
            await process.wait()

    def met(self, sub: str) -> Rule:
        """Counts the requests for a subresource that come as they should."""
        verb = "get" if self.websockets else "create"
        return self.plane.faults.add(Nothing(), verb=verb, path=f"*/pods/p/{sub}")


@pytest.fixture(params=WAYS)
async def session(request: pytest.FixtureRequest, kubectl: Path, tmp_path: Path) -> AsyncIterator[Session]:
    async with open_session(request.param, ReferenceProvider(), kubectl, tmp_path) as opened:
        yield opened


@asynccontextmanager
async def open_session(way: str, provider: ReferenceProvider, kubectl: Path, tmp_path: Path) -> AsyncIterator[Session]:
    mode, websockets = WAYS[way]
    async with ControlPlane(streams=mode) as plane, open_api(plane, plane.kubeconfig) as api:
        config = wasmlet.NodeConfig(
            kubeconfig=plane.node_kubeconfig("n1"),
            node_name="n1",
            node_ip="127.0.0.1",
            port=0,
            client_ca_file=plane.client_ca_file,
            state_dir=tmp_path / "n1",
            serving_csr=False,
        )
        async with wasmlet.Node(provider, config):
            containers = [{"name": "c", "image": "img:1", "ports": PORTS}]
            made = pod(nodeName="n1", containers=containers, tolerations=[{"operator": "Exists"}])
            await api.ok("POST", "/api/v1/namespaces/default/pods", made)
            async with api.watch("/api/v1/namespaces/default/pods") as lines:
                while (await lines.next(SECONDS))["object"]["status"].get("phase") != "Running":
                    pass
            yield Session(Kubectl(kubectl, plane.kubeconfig, tmp_path), plane, api, provider, websockets)


async def test_exec(session: Session) -> None:
    met = session.met("exec")
    assert await session.run("exec", "p", "--", "echo", "a b", "&c") == (0, b"a b &c\n", b"")
    code, out, err = await session.run("exec", "p", "-c", "c", "--", "complain", "oh")
    assert (code, out, err) == (0, b"", b"oh\n")
    code, out, err = await session.run("exec", "p", "--", "exit", "7")
    assert (code, out, err) == (7, b"", b"command terminated with exit code 7\n")
    assert met.met == 3


async def test_exec_with_stdin(session: Session) -> None:
    met = session.met("exec")
    code, out, _ = await session.run("exec", "-i", "p", "--", "cat", stdin=DATA)
    assert (code, out == DATA) == (0, True)
    assert await session.run("exec", "-i", "p", "--", "count", stdin=DATA) == (0, b"%d\n" % len(DATA), b"")
    code, out, _ = await session.run("exec", "p", "--", "zeros", str(len(DATA)))
    assert (code, out == bytes(len(DATA))) == (0, True)
    assert met.met == 3


async def test_exec_with_a_terminal(session: Session) -> None:
    async with session.terminal("exec", "-it", "p", "--", "cat") as (terminal, process):
        os.write(terminal.descriptor, b"typed")
        await terminal.until(b"typed")
    async with session.terminal("exec", "-it", "p", "--", "sizes") as (terminal, process):
        await terminal.until(b"80x24")
        terminal.resize(120, 40)
        process.send_signal(signal.SIGWINCH)  # as the kernel tells whoever the terminal belongs to
        await terminal.until(b"120x40")
    async with session.terminal("exec", "-it", "p", "--", "exit", "3") as (terminal, process):
        await terminal.until(b"command terminated with exit code 3")
        async with asyncio.timeout(SECONDS):
            assert await process.wait() == 3


async def test_exec_of_what_is_not_there(session: Session) -> None:
    code, _, err = await session.run("exec", "p", "--", "vim")
    assert code != 0
    assert b'exec: "vim": executable file not found in $PATH' in err
    code, _, err = await session.run("exec", "p", "-c", "z", "--", "true")
    assert (code, b"container z is not valid for pod p" in err) == (1, True)
    code, _, err = await session.run("exec", "gone", "--", "true")
    assert (code, b'pods "gone" not found' in err) == (1, True)


async def test_attach(session: Session) -> None:
    met = session.met("attach")
    key = session.provider.created[0]
    async with session.start("attach", "-i", "p") as process, asyncio.timeout(SECONDS):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"to the container\n")
        assert await process.stdout.readline() == b"to the container\n"  # that provider logs what it reads
        session.provider.log(key, "c", b"from the container\n")
        assert await process.stdout.readline() == b"from the container\n"
        session.provider.finish(key)
        assert await process.wait() == 0
    assert met.met == 1


async def test_port_forward(session: Session) -> None:
    met = session.met("portforward")
    async with session.start("port-forward", "p", ":8080") as process, asyncio.timeout(SECONDS):
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        found = re.fullmatch(r"Forwarding from 127\.0\.0\.1:(\d+) -> 8080\n", line)
        assert found, line

        async def send(data: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(found[1]))
            try:
                async with asyncio.TaskGroup() as group:
                    back = group.create_task(reader.read(-1))
                    for at in range(0, len(data), 65536):
                        writer.write(data[at : at + 65536])
                        await writer.drain()
                    writer.write_eof()
                return back.result()
            finally:
                writer.close()

        assert await send(b"hello") == b"hello"
        assert await send(DATA) == DATA
        pieces = [DATA[at : at + 100_000] for at in range(0, 1_000_000, 100_000)]
        assert await asyncio.gather(*map(send, pieces)) == pieces
    assert met.met == 1


async def test_port_forward_to_a_port_that_is_not_there(session: Session) -> None:
    async with session.start("port-forward", "p", ":9999") as process, asyncio.timeout(SECONDS):
        assert process.stdout is not None
        assert process.stderr is not None
        found = re.search(rb":(\d+) ->", await process.stdout.readline())
        assert found
        reader, writer = await asyncio.open_connection("127.0.0.1", int(found[1]))
        writer.write(b"anybody?")
        assert await reader.read(-1) == b""
        writer.close()
        while b"expected a port of the pod's containers" not in (line := await process.stderr.readline()):
            assert line


async def test_logs(session: Session) -> None:
    key = session.provider.created[0]
    session.provider.log(key, "c", b"first\n")
    assert await session.run("logs", "p") == (0, b"first\n", b"")
    async with session.start("logs", "-f", "p") as process, asyncio.timeout(SECONDS):
        assert process.stdout is not None
        assert await process.stdout.readline() == b"first\n"
        session.provider.log(key, "c", b"second\n")
        assert await process.stdout.readline() == b"second\n"
        session.provider.finish(key)
        assert await process.wait() == 0
    assert await session.run("logs", "p", "--tail=1") == (0, b"second\n", b"")


async def test_the_node_declares_what_it_takes(session: Session) -> None:
    node = await session.api.ok("GET", "/api/v1/nodes/n1")
    assert node["status"]["declaredFeatures"] == ["ExtendWebSocketsToKubelet"]


class Bare(ReferenceProvider):
    """It runs pods, and has nothing that kubectl could ask for."""

    name = "bare"
    logs = Provider.logs
    exec = Provider.exec
    attach = Provider.attach
    port_forward = Provider.port_forward


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_provider_does_not_have_is_said_as_such(way: str, kubectl: Path, tmp_path: Path) -> None:
    """In one line, which is not about errors of a server or upgrades of a connection."""
    async with open_session(way, Bare(), kubectl, tmp_path) as session:
        for command in (("logs", "p"), ("logs", "-f", "p"), ("logs", "p", "--tail=1")):
            code, out, err = await session.run(*command)
            assert (code, out) == (1, b"")
            assert err == b"Error from server (BadRequest): this node's provider, bare, keeps no logs\n"
        for what, command in {"exec": ("exec", "p", "--", "true"), "attach": ("attach", "p")}.items():
            code, out, err = await session.run(*command)
            assert (code, out) == (1, b"")
            said = f"this node's provider, bare, does not support {what}"
            assert err.decode().splitlines()[-1] in (f"error: {said}", f"Error from server (MethodNotAllowed): {said}")
        code, out, err = await session.run("port-forward", "p", ":8080")
        assert (code, out) == (1, b"")
        assert b"this node's provider, bare, does not support port-forward" in err
