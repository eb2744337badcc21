"""Guests that serve, compared with the same program as a native process: requests, first answers, memory asleep.

One source in C and, where there is Go, one with Go's net/http are compiled for WASI and for this machine. The client,
in C, runs on this machine and has one connection to a server at a time. Servers take turns, so that other load on the
machine affects all alike. Pods have loopback addresses (`--network address`), and all hardening that the machine allows
is on. The native servers have one core, as guests have one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from benchmarks.burst import quantile
from benchmarks.guest import group_memory
from benchmarks.processes import BenchmarkFailed
from benchmarks.report import Found, Progress
from wasmlet.cli import providers
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod
from wasmlet.model.status import Terminated
from wasmlet.provider import NodeContext, Provider

NATIVE = "native"
HANDLERS = ("wasmlet", "wasmlet-dense")
PORT = 8080
HERE = Path(__file__).parent
PATIENCE_SECONDS = 60.0
COMPILING_SECONDS = 600.0
"""How long the engine may compile: Go's net/http is some megabytes."""
SECONDS = 1.0
"""How long requests are made in each round."""
REST_SECONDS = 0.05
"""A rest before each start that is timed, in which the pod before it comes to its end."""


@attrs.frozen
class Size:
    """How much is measured: rounds of requests, starts one at a time, and pods that sleep side by side."""

    rounds: int
    starts: int
    asleep: int


@attrs.frozen
class Server:
    """One source, compiled for WASI and for this machine."""

    module: Path
    program: Path

    @property
    def image(self) -> str:
        return f"file://{self.module}"


async def serving(directory: Path, size: Size, progress: Progress) -> Found:
    """Each figure, by class.

    Raises:
        BenchmarkFailed: there is no compiler, or a server did not answer.
    """
    with progress.step("compiling the servers"):
        module, server, client = await asyncio.to_thread(compiled, directory)
        servers = {"C": Server(module, server)}
        if (go := _go()) is not None:
            servers["Go net/http"] = await asyncio.to_thread(_compiled_go, go, directory)
    if go is None:
        progress.line("Go net/http is left out: no go on PATH or of `make languages`")
    kind = providers.load("wasmtime")
    settings: Any = kind.Config
    provider: Provider = kind(settings(allow_local_modules=True, network="address"))
    state = directory / "state"
    state.mkdir(mode=0o700)
    await provider.start(NodeContext("bench", "127.0.0.1", size.asleep + 4, state))
    try:
        found: Found = {}
        for language, one in servers.items():
            figures = await _requests(provider, one, client, size.rounds, progress)
            figures |= await _first_answers(provider, one.image, size.starts, progress)
            found |= {f"{language}: {figure}": values for figure, values in figures.items()}
        memory = await _memory(provider, servers["C"].image, state, size.asleep, progress)
        return found | {f"C: {figure}": values for figure, values in memory.items()}
    finally:
        await provider.stop()


def compiled(directory: Path) -> tuple[Path, Path, Path]:
    """The server as a module and as a program, and the client."""
    module, server, client = directory / "server.wasm", directory / "server", directory / "client"
    for source, made, target in (
        ("server.c", module, ["-target", "wasm32-wasi"]),
        ("server.c", server, []),
        ("client.c", client, []),
    ):
        command = [sys.executable, "-m", "ziglang", "cc", *target, "-O2", "-s", "-o", str(made), str(HERE / source)]
        answer = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if answer.returncode:
            raise BenchmarkFailed(f"{source} does not compile; try `make setup`: {answer.stderr[-500:]}")
    return module, server, client


def _go() -> str | None:
    """Go's compiler: that of `make languages`, or the one of PATH."""
    fetched = Path(sys.executable).parents[1] / "languages" / "go" / "go" / "bin" / "go"
    return str(fetched) if fetched.exists() else shutil.which("go")


def _compiled_go(go: str, directory: Path) -> Server:
    found = Server(directory / "go-server.wasm", directory / "go-server")
    alone = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "", "GOWORK": "off", "CGO_ENABLED": "0"}
    for made, target in ((found.module, {"GOOS": "wasip1", "GOARCH": "wasm"}), (found.program, {})):
        command = [go, "build", "-C", str(HERE / "go"), "-ldflags=-s -w", "-trimpath", "-o", str(made), "."]
        variables = {**os.environ, **alone, **target}
        answer = subprocess.run(command, env=variables, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if answer.returncode:
            raise BenchmarkFailed(f"go/main.go does not compile: {answer.stderr[-500:]}")
    return found


async def _requests(provider: Provider, server: Server, client: Path, rounds: int, progress: Progress) -> Found:
    rates: dict[str, list[float]] = {name: [] for name in (NATIVE, *HANDLERS)}
    times: dict[str, list[float]] = {name: [] for name in rates}
    pods: list[Pod] = []
    try:
        with _native(server.program) as port:
            places = {NATIVE: ("127.0.0.1", port)}
            for handler in HANDLERS:
                pods.append(pod_of(f"serves-{handler}", server.image))
                with progress.step(f"compiling, {handler}"):
                    places[handler] = (await answering(provider, pods[-1], handler, COMPILING_SECONDS), PORT)
            with progress.step(f"requests, {rounds} rounds"):
                for _ in range(rounds):
                    for name, place in places.items():
                        rate, median = await asyncio.to_thread(asked, client, place)
                        rates[name].append(rate)
                        times[name].append(median)
    finally:
        for pod in pods:
            await provider.delete_pod(pod.key, 0)
    middle = {name: statistics.median(found) for name, found in rates.items()}
    usual = {name: statistics.median(found) for name, found in times.items()}
    return {
        "requests a second, one connection": middle,
        f"requests a second, of {NATIVE}": {name: rate / middle[NATIVE] for name, rate in middle.items()},
        "one request, p50, us": usual,
        f"one request, p50, in those of {NATIVE}": {name: took / usual[NATIVE] for name, took in usual.items()},
        f"one request, p50, more than {NATIVE}, us": {name: took - usual[NATIVE] for name, took in usual.items()},
    }


async def _first_answers(provider: Provider, image: str, count: int, progress: Progress) -> Found:
    """The milliseconds from `create_pod` to the first byte of an answer."""
    took: dict[str, list[float]] = {handler: [] for handler in HANDLERS}
    with progress.step("first answers"):
        for number in range(count):
            for handler in HANDLERS:
                pod = pod_of(f"first-{handler}-{number}", image)
                await asyncio.sleep(REST_SECONDS)
                begin = time.perf_counter()
                try:
                    await answering(provider, pod, handler)
                    took[handler].append(1000 * (time.perf_counter() - begin))
                finally:
                    await provider.delete_pod(pod.key, 0)
    return {
        f"first answer after the pod is made, p{share}, ms": {
            handler: quantile(sorted(found), share / 100) for handler, found in took.items()
        }
        for share in (50, 99)
    }


async def _memory(provider: Provider, image: str, state: Path, count: int, progress: Progress) -> Found:
    """The memory of one sleeping server, by the workers' control groups, with kernel memory; {} without such groups."""
    figures = {}
    for handler in HANDLERS:
        with progress.step(f"{count} asleep, {handler}"):
            pods = [pod_of(f"asleep-{handler}-{number}", image) for number in range(count)]
            warm = pod_of(f"warm-{handler}", image)
            await answering(provider, warm, handler)
            before = await asyncio.to_thread(group_memory, state.parent)
            try:
                for pod in pods:
                    await answering(provider, pod, handler)
                after = await asyncio.to_thread(group_memory, state.parent)
            finally:
                await asyncio.gather(*(provider.delete_pod(pod.key, 0) for pod in [*pods, warm]))
        if before is None or after is None:
            progress.line(f"{handler} has no figure for memory: the workers have no control groups here")
        else:
            figures[handler] = (after - before) / count
    return {"memory of a server asleep, with the kernel's, KiB": figures} if figures else {}


def pod_of(name: str, image: str) -> Pod:
    """A pod that serves."""
    container = {"name": "c", "image": image, "ports": [{"containerPort": PORT}]}
    return Pod(
        {
            "metadata": {"name": name, "namespace": "bench", "uid": f"uid-of-{name}"},
            "spec": {"restartPolicy": "Never", "containers": [container]},
        }
    )


async def answering(provider: Provider, pod: Pod, handler: str, seconds: float = PATIENCE_SECONDS) -> str:
    """Make the pod, and wait until it has answered a request, at most `seconds`. Returns its address."""
    await provider.create_pod(pod, Inputs(runtime_handler=handler))
    try:
        async with asyncio.timeout(seconds):
            while not (addresses := (await provider.pod_status(pod.key)).pod_ips):  # noqa: ASYNC110 - a stream costs more
                await asyncio.sleep(0.0005)
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    reader, writer = await asyncio.open_connection(addresses[0], PORT)
                    break
                status = await provider.pod_status(pod.key)
                if isinstance(status.containers[0].state, Terminated):
                    raise BenchmarkFailed(f"pod {pod.key.name} has ended: {status.containers[0].state}")
                await asyncio.sleep(0.0005)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            if not await reader.read(1):
                raise BenchmarkFailed(f"pod {pod.key.name}: expected an answer, found none")
            writer.close()
            return addresses[0]
    except TimeoutError:
        status = await provider.pod_status(pod.key)
        raise BenchmarkFailed(f"pod {pod.key.name} gave no answer within {seconds:g} s: {status}") from None


@contextlib.contextmanager
def _native(server: Path) -> Iterator[int]:
    """Run the server as a native process that works on one core at a time; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The listening socket is descriptor 3 in the child, as it is for a guest.
        process = os.posix_spawn(
            server,
            [str(server)],
            {"GOMAXPROCS": "1"},
            file_actions=[(os.POSIX_SPAWN_DUP2, listener.fileno(), 3)],
            setsigmask=(),
        )
        try:
            yield int(listener.getsockname()[1])
        finally:
            os.kill(process, 9)
            os.waitpid(process, 0)


def asked(client: Path, place: tuple[str, int], end: str = "hello\n") -> tuple[float, float]:
    """Run the client. Returns requests a second, and a request's median in microseconds; `end`: how answers end."""
    answer = subprocess.run(
        [client, place[0], str(place[1]), str(SECONDS), end], capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    try:
        rate, median = answer.stdout.split()
    except ValueError:
        raise BenchmarkFailed(f"expected figures of the client, found status {answer.returncode}") from None
    return float(rate), float(median)
