"""A waSCC actor that counts beside a component of wasi:http that does the same and is reused: requests, starts, memory.

Both run at one provider. While requests are counted, its processes are on one core, and the client, with one
connection, is on another core if there is one. They are asked by turns, so that other load on the machine affects both
alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import attrs

from benchmarks.burst import quantile
from benchmarks.guest import group_memory, pss, workers
from benchmarks.processes import BenchmarkFailed
from benchmarks.report import Found, Progress
from benchmarks.servers.components import from_another_core, listener, provider_of
from benchmarks.servers.serving import PORT, REST_SECONDS, Size, answering, compiled, pod_of
from wasmlet.model.pod import Pod
from wasmlet.provider import Provider

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
ACTOR, COMPONENT = "actor", "component, reused"
END = "}\n"
"""The last bytes of an answer, of both kinds."""
PATIENCE_SECONDS = 300.0


@attrs.frozen
class _Kind:
    """A way to count."""

    name: str
    file: Path
    handler: str
    annotations: dict[str, str]

    def pod(self, number: int = 0) -> Pod:
        made = pod_of(f"{self.name.replace(', ', '-')}-{number}", f"file://{self.file}")
        return Pod({**made.raw, "metadata": {**made.raw["metadata"], "annotations": self.annotations}})


async def actors(directory: Path, size: Size, progress: Progress) -> Found:
    """Each figure, for both kinds.

    Raises:
        BenchmarkFailed: there is no compiler, or one of them did not answer.
    """
    with progress.step("compiling the client and the component"):
        client = (await asyncio.to_thread(compiled, directory))[2]
        component = await asyncio.to_thread(_component, directory)
    kinds = (
        _Kind(ACTOR, EXAMPLES / "wascc" / "counter.wasm", "wasmlet-wascc", {"wascc.wasmlet.dev/keyvalue": "memory"}),
        _Kind(COMPONENT, component, "wasmlet", {"wasmlet.dev/http-instances": "reuse"}),
    )
    cores = os.sched_getaffinity(0)
    async with provider_of(directory, ("wascc",), size.asleep + 4) as (provider, state):
        with progress.step("compiling both"):
            for kind in kinds:
                async with _served(provider, kind):
                    pass
        found = await _first_answers(provider, kinds, size.starts, progress)
        for process in (os.getpid(), *workers(state)):
            os.sched_setaffinity(process, {min(cores)})  # also of what they start
        try:
            found |= await _requests(provider, kinds, client, size.rounds, state, progress)
        finally:
            for process in (os.getpid(), *workers(state)):
                os.sched_setaffinity(process, cores)
        return found | await _memory(provider, kinds, size.asleep, state, progress)


async def _memory(provider: Provider, kinds: tuple[_Kind, ...], count: int, state: Path, progress: Progress) -> Found:
    """By the control groups of the workers, with kernel memory; {} where there are none."""
    figures = {}
    for kind in kinds:
        with progress.step(f"{count} at rest, {kind.name}"):
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(_served(provider, kind))
                before = await asyncio.to_thread(group_memory, state.parent)
                for number in range(count):
                    await stack.enter_async_context(_served(provider, kind, number + 1))
                after = await asyncio.to_thread(group_memory, state.parent)
        if before is None or after is None:
            progress.line(f"{kind.name} has no figure for memory: the workers have no control groups here")
        else:
            figures[kind.name] = (after - before) / count
    return {"memory at rest, with the kernel's, KiB a pod": figures} if figures else {}


async def _requests(
    provider: Provider, kinds: tuple[_Kind, ...], client: Path, rounds: int, state: Path, progress: Progress
) -> Found:
    rates: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    times: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    async with contextlib.AsyncExitStack() as stack:
        places = {kind.name: (await stack.enter_async_context(_served(provider, kind)), PORT) for kind in kinds}
        processes = {name: listener(place, workers(state)) for name, place in places.items()}
        with progress.step(f"requests, {rounds} rounds"):
            for _ in range(rounds):
                for name, place in places.items():
                    rate, median = await asyncio.to_thread(from_another_core, client, place, END)
                    rates[name].append(rate)
                    times[name].append(median)
        memory = {name: pss([process]) for name, process in processes.items()}
    of_rounds = [actor / other for actor, other in zip(rates[ACTOR], rates[COMPONENT], strict=True)]
    return {
        "requests a second": {name: statistics.median(found) for name, found in rates.items()},
        f"requests a second, of {COMPONENT}": {ACTOR: statistics.median(of_rounds), COMPONENT: 1.0},
        "one request, p50, us": {name: statistics.median(found) for name, found in times.items()},
        "PSS, MiB": memory,
    }


async def _first_answers(provider: Provider, kinds: tuple[_Kind, ...], count: int, progress: Progress) -> Found:
    """From `create_pod` to the first byte of an answer, compiled before."""
    took: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    with progress.step("first answers"):
        for _ in range(count):
            for kind in kinds:
                await asyncio.sleep(REST_SECONDS)
                begin = time.perf_counter()
                async with _served(provider, kind):
                    took[kind.name].append(1000 * (time.perf_counter() - begin))
    return {
        f"first answer after the pod is made, p{share}, ms": {
            name: quantile(sorted(found), share / 100) for name, found in took.items()
        }
        for share in (50, 99)
    }


@contextlib.asynccontextmanager
async def _served(provider: Provider, kind: _Kind, number: int = 0) -> AsyncIterator[str]:
    """The address of a pod that serves, and has answered."""
    made = kind.pod(number)
    try:
        yield await answering(provider, made, kind.handler, PATIENCE_SECONDS)
    finally:
        await provider.delete_pod(made.key, 0)


def _component(directory: Path) -> Path:
    """The component that counts, as examples/http/README.md builds one."""
    module, component = directory / "counter.module", directory / "counter.wasm"
    flags = "-target wasm32-freestanding -nostdlib -mno-bulk-memory -Os -s -Wl,--no-entry -Wl,-z,stack-size=16384"
    wasm_tools = Path(sys.executable).with_name("wasm-tools")
    wit = EXAMPLES / "http" / "http.wit"
    for command in (
        [sys.executable, "-m", "ziglang", "cc", *flags.split(), "-o", module, HERE / "counter.c"],
        [wasm_tools, "component", "embed", wit, module, "--world", "http", "-o", module],
        [wasm_tools, "component", "new", module, "-o", component],
    ):
        answer = subprocess.run(list(map(str, command)), capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if answer.returncode:
            raise BenchmarkFailed(f"counter.c becomes no component; try `make setup`: {answer.stderr[-500:]}")
    return component
