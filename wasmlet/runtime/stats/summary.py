"""CPU and memory usage of the node, its pods and their containers, in the form of a kubelet's `/stats/summary`.

The values of a container come from its control group (`cgroups`). Without one, they are read from its process: its CPU
clock, and `smaps_rollup`. A guest's process shares most of its memory with the zygote and other guests. So its
proportional share (PSS) is counted, and the values of all pods add up. Values that cannot be read are left out.
`dense` measures containers that share a process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from wasmlet.model.pod import PodKey, Raw
from wasmlet.runtime.shim.instances import Labels
from wasmlet.runtime.shim.records import ContainerRecord
from wasmlet.runtime.stats import cgroups as cgroup_stats
from wasmlet.runtime.stats import dense as dense_stats
from wasmlet.worker import wire

_NANO = 1_000_000_000


@attrs.frozen
class Measured:
    """A container to be measured. `started` is in seconds since the epoch."""

    id: str
    pod: PodKey
    name: str
    pid: int
    started: float
    group: cgroup_stats.Group
    dense: dense_stats.Thread | None = None
    """Where the process is one of many containers."""

    @classmethod
    def of(cls, record: ContainerRecord, labels: Labels, places: Mapping[str, Any]) -> Measured:
        """One that runs; `places` as for `cgroup_stats.Group.of`."""
        dense = dense_stats.Thread(record.thread, record.memory) if record.thread else None
        group = cgroup_stats.Group.of(record.group, places)
        return cls(record.id, labels.pod, labels.container, record.pid, record.started, group, dense)


def running_of(records: Iterable[ContainerRecord], places: Mapping[str, Any]) -> list[Measured]:
    """Those of the records whose containers run; `places` as for `cgroup_stats.Group.of`."""
    found = [(record, Labels.of(record.labels)) for record in records if record.state == wire.RUNNING and record.pid]
    return [Measured.of(record, labels, places) for record, labels in found if labels is not None]


@attrs.frozen
class _Sample:
    at: int
    """On the monotonic clock, in nanoseconds."""
    cpu: int


class Stats:
    """Measures. Keeps of each container, and of the node, what it was before, to tell the rate since then."""

    def __init__(self) -> None:
        self._before: dict[str, _Sample] = {}

    def summary(self, containers: Iterable[Measured], pods: Mapping[PodKey, float], disk: Path) -> Raw:
        """`stats/v1alpha1` Summary, without the node's name; blocks.

        Args:
            containers: those that run.
            pods: every pod, and when it was started, in seconds since the epoch.
            disk: a path on the file system that pods and logs are on.
        """
        before, self._before = self._before, {}
        containers = list(containers)
        shared = _shared(containers)
        of_pod: dict[PodKey, list[Raw]] = {key: [] for key in pods}
        for container in containers:
            if container.pod in of_pod:
                found = self._container(container, before.get(container.id), shared)
                if found is not None:
                    of_pod[container.pod].append(found)
        return {
            "node": self._node(before.get(""), disk),
            "pods": [_pod(key, pods[key], found) for key, found in of_pod.items()],
        }

    def _container(
        self, container: Measured, before: _Sample | None, shared: Mapping[tuple[int, int], int]
    ) -> Raw | None:
        try:
            if container.dense is not None:
                cpu = dense_stats.cpu(container.pid, container.dense.thread)
                memory = _memory(shared.get((container.pid, container.dense.thread), 0))
            else:
                counted = container.group.cpu()
                cpu = time.clock_gettime_ns(_cpu_clock(container.pid)) if counted is None else counted
                memory = container.group.memory() or _shares(container.pid)
        except OSError:  # it has just ended
            return None
        sample = self._before[container.id] = _Sample(time.monotonic_ns(), cpu)
        now = _stamp(time.time())
        return {
            "name": container.name,
            "startTime": _stamp(container.started),
            "cpu": {
                "time": now,
                "usageNanoCores": _rate(sample, before, container.started),
                "usageCoreNanoSeconds": cpu,
            },
            "memory": {
                "time": now,
                "usageBytes": memory["usage"],
                "workingSetBytes": memory["working"],
                "rssBytes": memory["rss"],
            },
        }

    def _node(self, before: _Sample | None, disk: Path) -> Raw:
        figures = _fields(Path("/proc/meminfo"))
        boot, cpu = _processors()
        sample = self._before[""] = _Sample(time.monotonic_ns(), cpu)
        now = _stamp(time.time())
        working = figures["MemTotal"] - figures["MemAvailable"]
        place = os.statvfs(disk)
        return {
            "startTime": _stamp(boot),
            "cpu": {"time": now, "usageNanoCores": _rate(sample, before, boot), "usageCoreNanoSeconds": cpu},
            "memory": {
                "time": now,
                "availableBytes": figures["MemAvailable"],
                "usageBytes": figures["MemTotal"] - figures["MemFree"],
                "workingSetBytes": working,
                "rssBytes": figures.get("AnonPages", working),
            },
            "swap": {
                "time": now,
                "swapAvailableBytes": figures.get("SwapFree", 0),
                "swapUsageBytes": figures.get("SwapTotal", 0) - figures.get("SwapFree", 0),
            },
            "fs": {
                "time": now,
                "availableBytes": place.f_bavail * place.f_frsize,
                "capacityBytes": place.f_blocks * place.f_frsize,
                "usedBytes": (place.f_blocks - place.f_bfree) * place.f_frsize,
                "inodesFree": place.f_favail,
                "inodes": place.f_files,
                "inodesUsed": place.f_files - place.f_ffree,
            },
        }


def _shared(containers: Iterable[Measured]) -> dict[tuple[int, int], int]:
    """Bytes of those that share a process, by process and thread."""
    workers: dict[int, list[dense_stats.Thread]] = {}
    for container in containers:
        if container.dense is not None:
            workers.setdefault(container.pid, []).append(container.dense)
    found = {}
    for pid, guests in workers.items():
        try:
            total = _fields(Path(f"/proc/{pid}/smaps_rollup")).get("Pss", 0)
            found.update({(pid, thread): size for thread, size in dense_stats.memory(pid, total, guests).items()})
        except OSError:  # it has just ended
            continue
    return found


def _pod(key: PodKey, started: float, containers: list[Raw]) -> Raw:
    """A pod is the sum of what runs of it."""
    found: dict[str, Any] = {
        "podRef": {"name": key.name, "namespace": key.namespace, "uid": key.uid},
        "startTime": _stamp(started),
        "containers": containers,
    }
    for kind in ("cpu", "memory"):
        parts = [container[kind] for container in containers]
        if parts:
            sums = {name: sum(part[name] for part in parts) for name in parts[0] if name != "time"}
            found[kind] = {"time": max(part["time"] for part in parts), **sums}
    return found


def _shares(pid: int) -> Mapping[str, int]:
    """A process's proportional share."""
    found = _fields(Path(f"/proc/{pid}/smaps_rollup"))
    return _memory(found.get("Pss", 0), found.get("Pss_Anon"))


def _memory(working: int, rss: int | None = None) -> Mapping[str, int]:
    return {"usage": working, "working": working, "rss": working if rss is None else rss}


def _rate(sample: _Sample, before: _Sample | None, started: float) -> int:
    """Nanoseconds of CPU per second since the sample before, or since the start where there is none."""
    if before is not None and sample.at > before.at:
        used, passed = sample.cpu - before.cpu, sample.at - before.at
    else:
        used, passed = sample.cpu, max(1, time.time_ns() - int(started * _NANO))
    return max(0, used * _NANO // passed)


def _cpu_clock(pid: int) -> int:
    """The clock of all CPU time that a process has taken, as clock_getcpuclockid(3) gives it."""
    return (~pid << 3) | 2


def _processors() -> tuple[float, int]:
    """When the machine was booted, in seconds since the epoch, and the CPU time that it has taken since, in ns."""
    boot, ticks = 0.0, 0
    for line in Path("/proc/stat").read_text("ascii").splitlines():
        name, _, rest = line.partition(" ")
        if name == "cpu":
            user, nice, system, _, _, irq, softirq, *_ = map(int, rest.split())
            ticks = user + nice + system + irq + softirq
        elif name == "btime":
            boot = float(rest)
    return boot, ticks * _NANO // os.sysconf("SC_CLK_TCK")


def _fields(path: Path) -> dict[str, int]:
    """Bytes by name, from a file of lines like `Name:   12 kB`."""
    found = {}
    for line in path.read_text("ascii").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            found[name] = int(words[0]) * 1024
    return found


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
