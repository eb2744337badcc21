"""Addresses by CNI for many pods at once, beside the plugins alone, so many at a time as a node runs them.

All of it is in a network namespace of its own, with the network that kindnet has: `ptp` and `host-local`. The plugins
alone find their namespaces made, and their configuration in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs

from benchmarks.processes import BenchmarkFailed
from benchmarks.report import Found, Progress
from wasmlet.clock import SystemClock
from wasmlet.errors import WasmletError
from wasmlet.model.pod import PodKey
from wasmlet.runtime.network import conflist, namespaces
from wasmlet.runtime.network.cni import AT_ONCE, CniNetwork
from wasmlet.runtime.network.config import BIN_DIRS
from wasmlet.runtime.network.network import NetworkRequest
from wasmlet.runtime.network.plugins import Attachment, Plugins
from wasmlet.worker import linux

ALONE, NODE = f"plugins alone, {AT_ONCE} at a time", "node"


@attrs.frozen
class Size:
    """How many pods at once, and in how many rounds."""

    pods: int
    rounds: int


async def addresses(directory: Path, size: Size, progress: Progress) -> Found:
    """Each figure, for the node and for the plugins alone, which take turns.

    Raises:
        BenchmarkFailed: a plugin has failed, or this user may not.
    """
    seconds: dict[str, list[float]] = {ALONE: [], NODE: []}
    cpu: dict[str, list[float]] = {ALONE: [], NODE: []}
    directories = [path for path in BIN_DIRS if path.is_dir()]
    plugins = Plugins(directories, SystemClock())
    conf = directory / "net.d"
    conf.mkdir()
    (conf / "10-ptp.conflist").write_text(json.dumps(_network(directory / "leases")))
    try:
        with _own_namespace(directory / "own"), ThreadPoolExecutor(AT_ONCE) as threads:
            network = CniNetwork(directory / "cni", conf, plugins, lambda: ())
            await network.check()
            for number in range(size.rounds):
                with progress.step(f"addresses, round {number + 1} of {size.rounds}"):
                    for name in (ALONE, NODE) if number % 2 else (NODE, ALONE):
                        pods = [PodKey("bench", f"p{at}", f"{name[:1]}-{number}-{at}") for at in range(size.pods)]
                        if name == ALONE:
                            took = await _alone(directory / "alone", conf, directories, pods, threads)
                        else:
                            took = await _by_the_node(network, pods)
                        seconds[name].append(took[0])
                        cpu[name].append(1000 * took[1] / size.pods)
    except (WasmletError, OSError) as error:
        raise BenchmarkFailed(f"addresses by CNI: {error}") from error
    ratios = [node / alone for node, alone in zip(seconds[NODE], seconds[ALONE], strict=True)]
    return {
        f"{size.pods} pods at once, s": {name: statistics.median(found) for name, found in seconds.items()},
        "in times of the plugins alone": {ALONE: 1.0, NODE: statistics.median(ratios)},
        "CPU of a pod, with its plugins, ms": {name: statistics.median(found) for name, found in cpu.items()},
    }


def _network(data: Path) -> Mapping[str, Any]:
    ipam = {
        "type": "host-local",
        "dataDir": str(data),
        "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": "10.88.0.0/16"}]],
    }
    return {"cniVersion": "0.4.0", "name": "bench", "plugins": [{"type": "ptp", "ipam": ipam}]}


@contextlib.contextmanager
def _own_namespace(path: Path) -> Iterator[None]:
    """Have this thread, and what it starts, in a network namespace that is gone afterwards."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.make(path)
        try:
            inside = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                linux.enter_network(inside)
                yield
            finally:
                linux.enter_network(before)
                os.close(inside)
        finally:
            namespaces.remove(path)
    finally:
        os.close(before)


def _cpu() -> float:
    """Seconds of CPU of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


async def _by_the_node(network: CniNetwork, pods: list[PodKey]) -> tuple[float, float]:
    began, used = time.perf_counter(), _cpu()
    try:
        async with asyncio.TaskGroup() as group:
            for pod in pods:
                group.create_task(network.add(NetworkRequest(pod)))
        return time.perf_counter() - began, _cpu() - used
    finally:
        for pod in pods:
            await network.remove(pod.uid)


def _found(plugin: str, directories: list[Path]) -> Path:
    return next(path / plugin for path in directories if (path / plugin).exists())


async def _alone(
    directory: Path, conf: Path, programs: list[Path], pods: list[PodKey], threads: ThreadPoolExecutor
) -> tuple[float, float]:
    await asyncio.to_thread(directory.mkdir, exist_ok=True)
    network = conflist.find(conf)
    assert network is not None
    (plugin,) = network.plugins
    config = json.dumps(network.config(plugin, {}, None)).encode()
    program = _found(str(plugin["type"]), programs)

    def run(pod: PodKey, verb: Any) -> None:
        variables = Attachment(pod, str(directory / pod.uid)).variables(verb, programs)
        subprocess.run([program], input=config, stdout=subprocess.PIPE, env=variables, check=True)

    loop = asyncio.get_running_loop()
    try:
        for pod in pods:
            namespaces.make(directory / pod.uid)
        began, used = time.perf_counter(), _cpu()
        await asyncio.gather(*(loop.run_in_executor(threads, run, pod, "ADD") for pod in pods))
        took = time.perf_counter() - began, _cpu() - used
        await asyncio.gather(*(loop.run_in_executor(threads, run, pod, "DEL") for pod in pods))
    except subprocess.CalledProcessError as error:
        raise BenchmarkFailed(f"{program.name}: {error}") from error
    finally:
        for pod in pods:
            namespaces.remove(directory / pod.uid)
    return took
