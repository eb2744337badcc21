"""Makes a Linux control group for each container, sets its limits there, and removes it when the container has ended.

The zygote makes processes in advance, before it is known which container they are for. Each of them starts in a new
group (`Groups.make`). When a container gets the process, the container's limits are written into the group
(`Group.limit`). Execs in the container join the same group (`Group.open_cgroup_fds`). A worker with many dense
containers has one group for all of them.

The groups lie side by side in one directory (`cgroups` finds it). There is no group for each pod: a group cannot be
moved below another one, so the pod would have to be known when the process is made.

The limits are the kubelet's: `cpu_quota`, `cpu_shares` and `cpu_weight` are its formulas. The memory limit is raised by
`ALLOWANCE`, for what the engine and the kernel need for a process with a guest. Where a group limits the memory, the
engine does not: the kernel kills a guest that takes more, as it does in any container, and `Group.oom_killed` says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from typing import Any

from .. import wire
from ..fields import Resources
from ..log import log_problem
from ..loop import Loop
from . import cgroups
from .cgroups import Place, read, write

ALLOWANCE = 8 * 1024 * 1024
"""Bytes of memory beyond the container's limit, for what its process takes beside the guest, with the kernel's part.

Measured: 2.3 to 3 MiB for a module of wasmtime, 3.4 for one of wasmer, 5.3 for a component that serves and 5.9 for an
actor; for these two up to 7.4 with 100 connections at once.
"""

MOST_TASKS = 512
"""Threads and processes of a container. A guest can start none: this stops one that has broken out of its engine."""

ENGINE_TASKS = 1024
"""Threads of a dense worker beside one for each container: wasmtime has up to 513 for WASI's calls on files."""

PERIOD = 100_000
"""Microseconds over which a quota of CPU counts, the kubelet's."""

_LEAST_QUOTA, _LEAST_SHARES, _MOST_SHARES = 1000, 2, 262144
"""Bounds of the kernel: microseconds for each `PERIOD`, and weights of version 1."""

_CLOSE_SECONDS = 1.0
"""How long the end of the shim waits until its groups are empty."""

PLACES = "cgroups.json"
"""A file in the state directory: the directories of our groups. The next shim removes what this one has left there."""

# Names of the kernel's files, by the version of control groups.
_USAGE = {1: "memory.usage_in_bytes", 2: "memory.current"}
_LIMITS = {1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"), 2: ("memory.max", "memory.swap.max")}
_EVENTS = {1: "memory.oom_control", 2: "memory.events"}

_AGAIN = (0.02, 5.0)
"""The first pause (seconds) before removing a group that is in use is tried again, and the longest; pauses double."""


def shares_of(resources: Resources) -> int:
    """The CPU weight of a container, for version 1. Without a request it is the limit's; without either, the least."""
    return cpu_shares(resources.cpu or 0 if resources.cpu_request is None else resources.cpu_request)


def cpu_quota(thousandths: int | None) -> int:
    """Microseconds of CPU per `PERIOD`; -1 for no limit."""
    return max(_LEAST_QUOTA, thousandths * PERIOD // 1000) if thousandths else -1


def cpu_shares(thousandths: int) -> int:
    """The CPU weight for so many thousandths of a core, for version 1."""
    return min(_MOST_SHARES, max(_LEAST_SHARES, thousandths * 1024 // 1000))


def cpu_weight(shares: int) -> int:
    """The CPU weight for version 2, from that for version 1."""
    return 1 + (shares - _LEAST_SHARES) * 9999 // (_MOST_SHARES - _LEAST_SHARES)


class Group:
    """A control group: of one process that a zygote has made, and then of the container that gets the process.

    On a machine with version 1 it is a directory for each controller, and all of them are meant.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, places: list[Place], name: str) -> None:
        self.name = name
        self._places = places
        self._seen = 0
        self._resources = Resources()
        self.cgroup_fds: tuple[int, ...] = ()
        """Descriptors with which its first process joins (see `open_cgroup_fds`), until `close_cgroup_fds`."""
        for place in places:
            path = f"{place.directory}/{name}"
            os.mkdir(path, 0o755)
            if "pids" in place.controllers:
                write(f"{path}/pids.max", str(MOST_TASKS))
            if "cpu" in place.controllers:
                write_shares(place.version, path, _LEAST_SHARES)
            if "memory" in place.controllers and place.version == 2:
                write(f"{path}/memory.oom.group", "1")
        self.cgroup_fds = self.open_cgroup_fds()

    @property
    def holds_memory(self) -> bool:
        """Whether a limit of memory is kept here."""
        return any("memory" in place.controllers for place in self._places)

    def open_cgroup_fds(self) -> tuple[int, ...]:
        """Open descriptors to join the group: a process of one thread writes "0" to each. The caller closes them."""
        opened: list[int] = []
        try:
            for place in self._places:
                opened.append(os.open(f"{place.directory}/{self.name}/{place.join_file}", os.O_WRONLY | os.O_CLOEXEC))
        except BaseException:
            wire.close(opened)
            raise
        return tuple(opened)

    def close_cgroup_fds(self) -> None:
        """Close the descriptors of the first process, which has copies of its own."""
        wire.close(self.cgroup_fds)
        self.cgroup_fds = ()

    def set_task_limit(self, containers: int) -> None:
        """Let the group of a dense worker have the threads of so many containers.

        Raises:
            OSError: the kernel refuses.
        """
        for place in self._places:
            if "pids" in place.controllers:
                write(f"{place.directory}/{self.name}/pids.max", str(ENGINE_TASKS + containers))

    def set_cpu_shares(self, shares: int) -> None:
        """Set the CPU weight of a dense worker's group, in shares. For a single container `limit` does it.

        Raises:
            OSError: the kernel refuses.
        """
        for place in self._places:
            if "cpu" in place.controllers:
                write_shares(place.version, f"{place.directory}/{self.name}", min(_MOST_SHARES, shares))

    def limit(self, resources: Resources) -> None:
        """Set these limits.

        Raises:
            OSError: the kernel refuses.
            wire.WireError: more memory is in use than the new limit.
        """
        before = self._resources
        for place in self._places:
            path = f"{place.directory}/{self.name}"
            if "memory" in place.controllers and resources.memory != before.memory:
                self._limit_memory(place.version, path, resources.memory)
            if "cpu" in place.controllers:
                if shares_of(resources) != shares_of(before):
                    write_shares(place.version, path, shares_of(resources))
                if resources.cpu != before.cpu:
                    quota = cpu_quota(resources.cpu)
                    if place.version == 1:
                        write(f"{path}/cpu.cfs_quota_us", str(quota))
                    else:
                        write(f"{path}/cpu.max", f"{quota if quota > 0 else 'max'} {PERIOD}")
        self._resources = resources

    def _limit_memory(self, version: int, path: str, limit: int | None) -> None:
        before = self._resources.memory
        if limit is not None and before is not None:
            used = int(read(f"{path}/{_USAGE[version]}"))
            if used > limit + ALLOWANCE:
                raise wire.WireError(f"the limit of memory cannot become {limit} bytes: {used} are in use")
        memory, swap = _LIMITS[version]
        most = "max" if version == 2 else "-1"
        total = most if limit is None else str(limit + ALLOWANCE)
        # Nothing is swapped out. In version 1 memory and swap together are limited, never to less than memory alone.
        values = [(memory, total), (swap, total if version == 1 or limit is None else "0")]
        if version == 1 and before is not None and (limit is None or limit > before):
            values.reverse()
        for name, value in values:
            try:
                write(f"{path}/{name}", value)
            except FileNotFoundError:
                if name == memory:  # a kernel without swap has no limit of it
                    raise

    def oom_killed(self) -> bool:
        """Whether the kernel has killed a process of the group because memory was short; reported once for each."""
        for place in self._places:
            if "memory" in place.controllers:
                text = read(f"{place.directory}/{self.name}/{_EVENTS[place.version]}")
                kills = int(dict(line.split(" ", 1) for line in text.splitlines()).get("oom_kill", 0))
                if kills > self._seen:
                    self._seen += 1
                    return True
        return False

    def kill(self) -> None:
        """End every process in it."""
        for place in self._places:
            _kill(f"{place.directory}/{self.name}")

    def remove(self) -> bool:
        """Remove it; False where there is still a process in it."""
        gone = True
        for place in self._places:
            gone = _remove(f"{place.directory}/{self.name}") and gone
        return gone


class Groups:
    """Makes and removes the groups of a shim, whose state directory is the current directory.

    Groups that an earlier shim of this state directory has left are removed. That shim is dead, because only one can
    hold the directory.

    Args:
        wanted: False if this node wants no groups: `make` returns None then.
        proc: where the kernel's /proc is.
    """

    def __init__(self, loop: Loop, wanted: bool = True, proc: str = "/proc") -> None:
        self._loop = loop
        self._count = 0
        self._made = f"{os.getpid()}-"
        self._complained = False
        before = _earlier()
        name = cgroups.name_of(os.getcwd())
        if wanted:
            self.places, missing = cgroups.open_places(name, proc)
            self.description = cgroups.description(self.places, missing)
        else:
            self.places, self.description = [], "off: this node does not want it"
        for place in self.places:
            if "cpu" in place.controllers:
                # Beside the rest of the machine all containers together weigh as much as its CPUs, as with a kubelet.
                with contextlib.suppress(OSError):
                    write_shares(place.version, place.directory, cpu_shares(1000 * (os.cpu_count() or 1)))
        now = [place.directory for place in self.places]
        _remember(now)
        for directory in {*now, *(path for path in before if os.path.basename(path) == name)}:
            self._clear(directory, keep=directory in now)

    def as_message(self) -> dict[str, Any]:
        """Each controller and where its groups are, as the shim's greeting `hello` has it."""
        return {
            controller: {"version": place.version, "directory": place.directory}
            for place in self.places
            for controller in sorted(place.controllers)
        }

    def make(self) -> Group | None:
        """A new group for a process that is about to be made; None where no group can be made."""
        if not self.places:
            return None
        self._count += 1
        name = f"{self._made}{self._count}"
        try:
            return Group(self.places, name)
        except OSError as error:
            if not self._complained:
                self._complained = True
                log_problem(f"cannot make a control group, so limits are the engine's only: {error}")
            for place in self.places:
                _remove(f"{place.directory}/{name}")
            return None

    def discard(self, group: Group | None, pause: float = _AGAIN[0]) -> None:
        """Remove a group whose first process has ended or is not wanted any more; other processes in it are ended."""
        if group is not None and not group.remove():
            group.kill()
            self._loop.later(pause, lambda: self.discard(group, min(pause * 2, _AGAIN[1])))

    def _clear(self, directory: str, keep: bool, pause: float = _AGAIN[0]) -> None:
        """End what a dead shim has left in its groups, and remove them; with `keep` not those that are ours now."""
        left = False
        with contextlib.suppress(OSError):
            for entry in os.listdir(directory):
                path = f"{directory}/{entry}"
                if os.path.isdir(path) and not entry.startswith(self._made):
                    _kill(path)
                    left = not _remove(path) or left
        if not keep:
            left = not (_remove(directory) and _remove(directory + cgroups.LEAF)) or left
        if left:
            self._loop.later(pause, lambda: self._clear(directory, keep, min(pause * 2, _AGAIN[1])))

    def close(self) -> None:
        """The shim leaves: end what is left in its groups, and remove them. Waits for that for a short time."""
        until = time.monotonic() + _CLOSE_SECONDS
        while not self._emptied() and time.monotonic() < until:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(0.002)
        if time.monotonic() < until:
            with contextlib.suppress(OSError):
                os.unlink(PLACES)

    def _emptied(self) -> bool:
        left = False
        for place in self.places:
            with contextlib.suppress(FileNotFoundError):
                for entry in os.listdir(place.directory):
                    if entry.startswith(self._made):
                        _kill(f"{place.directory}/{entry}")
                        left = not _remove(f"{place.directory}/{entry}") or left
            left = left or not cgroups.leave(place)
        return not left


def _earlier() -> list[str]:
    try:
        with open(PLACES, encoding="utf-8") as file:
            return [path for path in json.load(file) if isinstance(path, str)]
    except (OSError, ValueError, TypeError):
        return []


def _remember(directories: list[str]) -> None:
    try:
        with open(PLACES + ".new", "w", encoding="utf-8") as file:
            json.dump(directories, file)
        os.rename(PLACES + ".new", PLACES)
    except OSError as error:
        log_problem(f"cannot write {PLACES}: {error}")


def write_shares(version: int, path: str, shares: int) -> None:
    """Set the weight of a group beside its neighbours."""
    if version == 1:
        write(f"{path}/cpu.shares", str(shares))
    else:
        write(f"{path}/cpu.weight", str(cpu_weight(shares)))


def _remove(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _kill(directory: str) -> None:
    """End every process in a group, and no other one that has got the pid of a process which was in it."""
    with contextlib.suppress(OSError, ValueError):
        for pid in map(int, read(f"{directory}/cgroup.procs").split()):
            with contextlib.suppress(OSError):
                watch = os.pidfd_open(pid)
                try:
                    if pid in map(int, read(f"{directory}/cgroup.procs").split()):
                        signal.pidfd_send_signal(watch, signal.SIGKILL)
                finally:
                    os.close(watch)
