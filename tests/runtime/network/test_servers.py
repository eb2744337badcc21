"""Guests that serve: their listeners are there at their start, and everything that a server does with them works."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import attrs
import pytest

from tests.guests import build
from tests.runtime.harness import PATIENCE, Runtime, pod_of
from tests.shared.descriptors import open_descriptors
from tests.worker.harness import children
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import PodKey

PROCESS = Inputs(node_name="node", node_ips=["127.0.0.1"])
DENSE = attrs.evolve(PROCESS, runtime_handler="wasmlet-dense")
CLASSES = pytest.mark.parametrize("inputs", [PROCESS, DENSE], ids=["process", "dense"])
PORT = 8080
REQUEST = b"GET / HTTP/1.1\r\nHost: pod\r\n\r\n"
VOLUME = {"volumes": [{"name": "v", "emptyDir": {}}]}
MOUNTED = [{"name": "v", "mountPath": "/data"}]


@pytest.fixture(scope="session")
def server(compile_guest: Callable[..., None]) -> str:
    """The servers in C as an image; the first argument says which."""
    return f"file://{build('server', compile_guest)}"


async def serving(runtime: Runtime, inputs: Inputs, image: str, *args: str, ports: int = 1, **more: object) -> PodKey:
    """A pod that runs, with so many ports from `PORT` on."""
    listed = [{"containerPort": PORT + number} for number in range(ports)]
    key = await runtime.create(pod_of(*args, image=image, ports=listed, **more), inputs)  # type: ignore[arg-type]
    await runtime.running(key)
    return key


async def address(runtime: Runtime, key: PodKey) -> str:
    return (await runtime.until(key, lambda status: bool(status.pod_ips))).pod_ips[0]


async def connected(host: str, port: int = PORT) -> socket.socket:
    """A connection to a guest that is about to listen."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        while True:
            made = socket.socket()
            made.setblocking(False)
            try:
                await loop.sock_connect(made, (host, port))
                return made
            except ConnectionRefusedError:
                made.close()
                await asyncio.sleep(0.005)


async def asked(connection: socket.socket, request: bytes = REQUEST) -> bytes:
    """The answer to one request."""
    loop, answer = asyncio.get_running_loop(), b""
    async with asyncio.timeout(PATIENCE):
        await loop.sock_sendall(connection, request)
        while not answer.endswith(b"wasm\n"):
            more = await loop.sock_recv(connection, 65536)
            if not more:
                break
            answer += more
    return answer


@CLASSES
@pytest.mark.parametrize("how", ["turn", "many"])
async def test_a_server_answers_again_and_again(networked: Runtime, server: str, inputs: Inputs, how: str) -> None:
    key = await serving(networked, inputs, server, how, ports=2)
    host = await address(networked, key)
    for _ in range(3):
        with await connected(host) as connection:
            for _ in range(50):
                assert (await asked(connection)).endswith(b"\r\n\r\nhello, wasm\n")
    if how == "many":
        with await connected(host) as first, await connected(host, PORT + 1) as second:
            assert await asked(first) == await asked(second) != b""


@CLASSES
async def test_nobody_is_connected_before_the_guest_accepts(networked: Runtime, server: str, inputs: Inputs) -> None:
    key = await serving(networked, inputs, server, "wait", "sleep")
    with socket.socket() as early, pytest.raises(ConnectionRefusedError):
        early.connect((await address(networked, key), PORT))


@CLASSES
async def test_files_are_beside_sockets(networked: Runtime, server: str, inputs: Inputs, image: str) -> None:
    spec = VOLUME | {"initContainers": [{"name": "init", "image": image, "args": ["put", "/data/f", "in a file"],
                                         "volumeMounts": MOUNTED}]}  # fmt: skip
    listed = [{"containerPort": PORT}]
    pod = pod_of("file", "/data/f", image=server, ports=listed, spec=spec, volumeMounts=MOUNTED)
    key = await networked.create(pod, inputs)
    loop = asyncio.get_running_loop()
    with await connected(await address(networked, key)) as connection:
        assert await loop.sock_recv(connection, 100) == b"in a file"
        await loop.sock_sendall(connection, b"from outside")
        ended = await networked.ended(key)
    assert (ended.exit_code, await networked.log(key)) == (0, b"")


@CLASSES
async def test_descriptors_are_renumbered(networked: Runtime, server: str, inputs: Inputs, image: str) -> None:
    spec = VOLUME | {"initContainers": [{"name": "init", "image": image, "args": ["put", "/data/f", "in a file"],
                                         "volumeMounts": MOUNTED}]}  # fmt: skip
    listed = [{"containerPort": PORT}]
    pod = pod_of("renumber", "/data/f", image=server, ports=listed, spec=spec, volumeMounts=MOUNTED)
    key = await networked.create(pod, inputs)
    with await connected(await address(networked, key)) as connection:
        assert await asyncio.get_running_loop().sock_recv(connection, 100) == b"in a file"
        assert await asyncio.get_running_loop().sock_recv(connection, 100) == b""
    ended = await networked.ended(key)
    assert (ended.exit_code, await networked.output(key)) == (0, b"")


@CLASSES
async def test_what_sockets_say_of_themselves(networked: Runtime, server: str, inputs: Inputs) -> None:
    key = await serving(networked, inputs, server, "flags")
    loop = asyncio.get_running_loop()
    with await connected(await address(networked, key)) as connection:
        await loop.sock_sendall(connection, b"seen")
        await asyncio.sleep(0.05)
        await loop.sock_sendall(connection, b"afterwards")
        assert await loop.sock_recv(connection, 1) == b""
        connection.shutdown(socket.SHUT_WR)
        assert (await networked.ended(key)).exit_code == 0
    assert await networked.log(key) == b"1\n0\n4 8 seenseenafte\n6\n"


@CLASSES
async def test_all_of_it_is_written(networked: Runtime, server: str, inputs: Inputs) -> None:
    key = await serving(networked, inputs, server, "flood")
    loop, got = asyncio.get_running_loop(), 0
    with await connected(await address(networked, key)) as connection:
        while piece := await loop.sock_recv(connection, 65536):
            got += len(piece)
    assert got == 2**20
    assert (await networked.ended(key)).exit_code == 0


@CLASSES
async def test_ten_thousand_connections(networked: Runtime, server: str, inputs: Inputs) -> None:
    """A guest has 8000 sockets at most: it is told so, and serves on."""
    key = await serving(networked, inputs, server, "hoard")
    host = await address(networked, key)
    with contextlib.ExitStack() as held:
        first = held.enter_context(await connected(host))
        for _ in range(10_000):
            made = held.enter_context(socket.socket())
            made.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                made.connect((host, PORT))
        said = await networked.logged(key, b"\n")
        assert 7990 < int(said.split()[-1]) <= 8000
        assert (await asked(first)).endswith(b"wasm\n")
        first.close()
    with await connected(host) as again:
        assert (await asked(again)).endswith(b"wasm\n")
    assert (await networked.running(key)).restart_count == 0


@CLASSES
async def test_a_guest_that_never_reads(networked: Runtime, server: str, inputs: Inputs) -> None:
    """What is sent to it stops at what the kernel holds; its end is not delayed."""
    key = await serving(networked, inputs, server, "deaf")
    with await connected(await address(networked, key)) as connection:
        assert sent_all_it_takes(connection) < 64 * 2**20
        await asyncio.wait_for(networked.provider.delete_pod(key, 0), PATIENCE)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            sent_all_it_takes(connection)


def sent_all_it_takes(connection: socket.socket) -> int:
    """Send until there is no more room; how many bytes it was."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < 2**30:
            sent += connection.send(bytes(65536))
    return sent


@pytest.mark.parametrize("what", ["accept", "nobody", "poll", "sleep", "read", "recv", "write"])
async def test_a_dense_guest_ends_wherever_it_waits(networked: Runtime, server: str, image: str, what: str) -> None:
    beside = await networked.create(pod_of("print", "here", "sleep", "1000", image=image, name="beside"), DENSE)
    before = await networked.running(beside)
    key = await serving(networked, DENSE, server, "wait", what)
    host = await address(networked, key)
    worker = workers(networked)
    descriptors = open_descriptors(worker)
    with await connected(host) if what in ("read", "recv", "write") else contextlib.nullcontext() as connection:
        if connection is not None and what == "write":
            assert await asyncio.get_running_loop().sock_recv(connection, 1) != b""
        final = await asyncio.wait_for(networked.provider.delete_pod(key, 0), PATIENCE)
    assert final is not None
    assert final.containers[0].state.exit_code == 137
    assert workers(networked) == worker
    assert await networked.running(beside) == before
    assert open_descriptors(worker) < descriptors


def workers(runtime: Runtime) -> int:
    (found,) = [pid for pid, name in children(runtime.shim).items() if name == "wasmlet-dense"]
    return found
