"""The engines' RuntimeClasses side by side in one run: time to a first byte, memory asleep, speed of computing.

It is measured at the provider, without the node loop, with all hardening that the machine allows. For each figure the
classes take turns, so that other load on the machine affects all alike. They are compared with `native` (fork and exec
of `echo`), with the module under wasmtime alone in a process of its own, and with runc, where it is installed.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from benchmarks.burst import quantile
from benchmarks.first_byte import native, one_pod, pod_of
from benchmarks.guest import SPINNER, group_memory, image_of, sleeper
from benchmarks.processes import BenchmarkFailed, started
from benchmarks.report import Found, Progress
from benchmarks.runc import Runc
from wasmlet.cli import providers
from wasmlet.errors import ConfigError
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import PodKey
from wasmlet.model.status import Running, Terminated
from wasmlet.provider import NodeContext, Provider, StatusChanged

NATIVE, RUNC, ALONE = "native", "runc", "wasmtime alone"
OTHER_ENGINES = ("wasmer",)
PATIENCE_SECONDS = 60.0
SETTLE_SECONDS = 1.0
COMPUTING_ROUNDS = 5


@attrs.frozen
class Size:
    """How much is measured: starts one at a time, and pods that sleep side by side."""

    starts: int
    pods: int


async def classes(directory: Path, size: Size, progress: Progress) -> Found:
    """Each figure, by class: `{"first byte, p50, ms": {"native": 1.3, ...}, ...}`.

    Raises:
        BenchmarkFailed: a pod did not run.
    """
    async with _provider(directory, size, progress) as provider:
        handlers = [name for name in (await provider.node_status()).runtime_handlers if name]
        found = await _first_bytes(provider, handlers, directory, size.starts, progress)
        found |= await _memory(provider, handlers, directory, size.pods, progress)
        return found | await _computing(provider, handlers, directory, progress)


@asynccontextmanager
async def _provider(directory: Path, size: Size, progress: Progress) -> AsyncIterator[Provider]:
    """The provider for wasmtime, with the other engines that can run here."""
    kind = providers.load("wasmtime")
    settings: Any = kind.Config
    for number, others in enumerate((OTHER_ENGINES, ())):
        state = directory / f"state-{number}"
        state.mkdir(mode=0o700)
        provider: Provider = kind(settings(allow_local_modules=True, engine=others))
        try:
            await provider.start(NodeContext("bench", "127.0.0.1", size.pods + 1, state))
        except ConfigError as error:
            if not others:
                raise
            progress.line(f"{', '.join(others)} is left out: {error}")
            continue
        try:
            yield provider
        finally:
            await provider.stop()
        return


async def _first_bytes(
    provider: Provider, handlers: list[str], directory: Path, count: int, progress: Progress
) -> Found:
    image, starts = sleeper(directory), {name: list[float]() for name in (NATIVE, *handlers)}
    runc = await _runc(directory, progress)
    if runc is not None:
        starts[RUNC] = []
    number = 0
    with progress.step("one at a time"):
        for handler in handlers:  # to compile the modules, and to start zygotes and workers
            await one_pod(provider, image, number := number + 1, handler)
        async with progress.counting("rounds", count, lambda: len(starts[NATIVE])):
            for _ in range(count):
                starts[NATIVE].append(await asyncio.to_thread(native))
                for handler in handlers:
                    starts[handler].append((await one_pod(provider, image, number := number + 1, handler))[0])
                if runc is not None:
                    starts[RUNC].append(await asyncio.to_thread(runc.start))
    found = {}
    for share in (50, 99):
        figures = {name: quantile(sorted(times), share / 100) for name, times in starts.items()}
        found[f"first byte, p{share}, ms"] = figures
        found[f"first byte, p{share}, in starts of {NATIVE}"] = {
            name: value / figures[NATIVE] for name, value in figures.items()
        }
    return found


async def _runc(directory: Path, progress: Progress) -> Runc | None:
    try:
        return await asyncio.to_thread(Runc, directory)
    except BenchmarkFailed as error:
        progress.line(f"runc is left out: {error}")
        return None


async def _memory(provider: Provider, handlers: list[str], directory: Path, count: int, progress: Progress) -> Found:
    """The memory of one sleeping pod, by the workers' control groups, with kernel memory; {} without such groups."""
    image, figures = sleeper(directory), {}
    for handler in handlers:
        with progress.step(f"{count} asleep, {handler}"):
            pods = [pod_of(f"asleep-{handler}-{number}", image) for number in range(count)]
            await asyncio.sleep(SETTLE_SECONDS)
            before = await asyncio.to_thread(group_memory, directory)
            try:
                for pod in pods:
                    await provider.create_pod(pod, Inputs(runtime_handler=handler))
                asleep = await _all_run(provider, {pod.key for pod in pods})
                await asyncio.sleep(SETTLE_SECONDS)
                after = await asyncio.to_thread(group_memory, directory)
            finally:
                await asyncio.gather(*(provider.delete_pod(pod.key, 0) for pod in pods))
        if not asleep:
            progress.line(f"{handler} has no figure for memory: its guests cannot sleep")
        elif before is None or after is None:
            progress.line(f"{handler} has no figure for memory: the workers have no control groups here")
        else:
            figures[handler] = (after - before) / count
    return {"memory asleep, with the kernel's, KiB a pod": figures} if figures else {}


async def _all_run(provider: Provider, wanted: set[PodKey]) -> bool:
    """Wait until all of them run; False where one has ended instead."""
    changes = provider.changes()
    assert changes is not None
    left = set(wanted)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), aclosing(changes) as stream:
            while left:
                change = await anext(stream)
                container = change.status.container("c") if isinstance(change, StatusChanged) else None
                if container is not None and isinstance(change, StatusChanged) and change.key in wanted:
                    if isinstance(container.state, Terminated):
                        return False
                    if isinstance(container.state, Running):
                        left.discard(change.key)
    except TimeoutError:
        status = await provider.pod_status(next(iter(left)))
        text = f"{len(left)} of {len(wanted)} pods did not run within {PATIENCE_SECONDS:g} s; one of them: {status}"
        raise BenchmarkFailed(text) from None
    return True


async def _computing(provider: Provider, handlers: list[str], directory: Path, progress: Progress) -> Found:
    """The milliseconds that the same module computes in each class, by its own clock."""
    image = image_of("spinner", SPINNER, directory)
    took = {name: list[float]() for name in (ALONE, *handlers)}
    with progress.step("computing"):
        async with progress.counting("rounds", COMPUTING_ROUNDS, lambda: len(took[ALONE])):
            for number in range(COMPUTING_ROUNDS):
                async with started("alone", image.removeprefix("file://")) as process:
                    took[ALONE].append(int(process.said["nanoseconds"]) / 1e6)
                for place, handler in enumerate(handlers):
                    _, line = await one_pod(provider, image, -1 - number * len(handlers) - place, handler)
                    took[handler].append(int(line) / 1e6)
    figures = {name: statistics.median(times) for name, times in took.items()}
    ratios = {name: value / figures[ALONE] for name, value in figures.items()}
    return {"computing, ms": figures, f"computing, in times of {ALONE}": ratios}
