"""The shim: one small process per node, the parent of all guests. They keep running while the node loop restarts.

It is the parent of the zygotes and, as a subreaper, of every child that they fork. It records how each container ended,
writes their output to log files, and serves node loops over a socket in the state directory (`connections`). It has one
thread that never waits for anybody: pipes and sockets do not block, and queues are bounded.

It ends when it is told to, or on SIGTERM (then its containers are interrupted first). It also ends when it has had
neither a connection nor a running container for `--idle-exit` seconds; the next shim reads its record files. If it
dies, the kernel kills its children, and the next shim reports them as lost.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from .. import messages, wire
from ..fields import ZygoteKey
from ..guest import confine
from ..loop import READ, Loop, Timer
from . import termination
from .brokers import Broker, Network
from .children import Child
from .compression import Compressor
from .connections import Listener
from .containers import Container, Settings
from .execs import Exec, check_descriptors
from .groups import Groups
from .processes import Hooks, Process
from .records import Record
from .removals import Removals
from .stages import Stage
from .store import Store
from .workers import DenseContainer, Directory, Worker
from .zygotes import IDLE_SECONDS, Zygote


class Shim:
    """The shim: its records, and the processes that run.

    Args:
        rebooted: the machine was restarted since the records were written.
        cgroups: whether it may make control groups.
    """

    def __init__(self, loop: Loop, idle_exit: float, rebooted: bool, cgroups: bool = True) -> None:
        self.loop = loop
        self.groups = Groups(loop, cgroups)
        self.confinement = {"cgroup": self.groups.description, **confine.report()}
        """State of each part of the guests' confinement (`guest.confine`): `on` with details, or `off: ` and why."""
        self._removals = Removals(loop.later)
        self._store = Store(loop.later, self._removals)
        self.records: dict[str, Record] = {record.id: record for record in self._store.load(rebooted)}
        self._running: dict[str, Container] = {}
        self._execs: dict[str, Exec] = {}
        self._by_pid: dict[int, Child] = {}
        self._zygotes: dict[ZygoteKey, Zygote] = {}
        self._workers: dict[tuple[ZygoteKey, str], list[Worker]] = {}
        self._newest: dict[tuple[str, ...], ZygoteKey] = {}
        """By interpreter and module, the zygote that a node loop has named last: that of the present engine."""
        self._worker_count = 0
        # Exit statuses of unknown processes: a child may be reaped before its first message (its pid) has been read.
        self._unregistered: dict[int, int] = {}
        self._retried: set[str] = set()
        self._compressor = Compressor()
        self._broker = Broker(loop, self._refused)
        self._idle_exit = idle_exit
        self._idle: Timer | None = None
        self._leaving = False
        self.on_change: Callable[[Record, bytes], None] = lambda record, data: None
        self._listener = Listener(self)
        self._catch_signals()
        self.consider_leaving()

    # What connections ask for

    def run(self, request: messages.Run, descriptors: list[int]) -> Record:
        """Start a container, once: an id that is known already is left as it is. Takes over the descriptors."""
        taken = False
        try:
            if request.id in self.records:
                return self.records[request.id]
            if self._leaving:
                raise wire.WireError("the shim is shutting down")
            termination.make(request.message, descriptors, self._removals)
            if not 2 <= len(descriptors) <= 2 + wire.MAX_MOUNTS:
                raise wire.WireError(
                    f"expected two descriptors (spec, compiled module) and at most {wire.MAX_MOUNTS} more for mounts, "
                    f"found {len(descriptors)}"
                )
            container, begin = self._new_container(request, descriptors)
            taken = True
        finally:
            if not taken:
                wire.close(descriptors)
        record = container.record
        self.records[request.id], self._running[request.id] = record, container
        begin(container)
        container.open_log()  # while its guest begins
        if container.waits and not request.dense:
            self.on_change(record, b"")  # it is on file before it is given to a process
        elif record.state != wire.ENDED and not record.pid:
            self._changed(container)
        return record

    def _new_container(self, request: messages.Run, descriptors: list[int]) -> tuple[Container, Callable[[Any], None]]:
        """A new container, and the function that begins it."""
        key = request.zygote
        begin: Callable[[Any], None] = functools.partial(self._fork, key)
        if request.dense:
            begin = functools.partial(self._assign_worker, key, request.dense, request.within)
        record = Record(request.id, dict(request.labels), request.log, created=time.time())
        hooks = Hooks(self._changed, functools.partial(self._begin_again, key, begin))
        kind = DenseContainer if request.dense else Container
        container = kind(self.loop, record, descriptors, hooks, Settings.of(request), self._compressor.add)
        container.zygote = self._newest[key[:2]] = key
        if request.network is not None:
            container.network = Network(self._broker, request.id, request.network, shared=bool(request.dense))
        return container, begin

    def stop(self, name: str, grace: float) -> Record | None:
        """Interrupt a container or exec and kill it after `grace` seconds; one that has ended is left as it is."""
        process = self._running.get(name) or self._execs.get(name)
        if process is not None:
            process.stop(grace)
        return self.records.get(name)

    def container(self, name: str) -> Container:
        """A container that runs.

        Raises:
            wire.WireError: it does not, or is not known.
        """
        container = self._running.get(name)
        if container is None or not container.lives:
            raise wire.WireError(f"container {name[:80]} is not running")
        return container

    def exec(self, request: messages.Exec, descriptors: list[int], ended: Callable[[Record], None]) -> Exec:
        """Start an exec in a container that runs. Takes over the descriptors; `ended` is called at its end."""
        taken = False
        try:
            name, container = request.id, self.container(request.container)
            if name in self._execs or name in self.records:
                raise wire.WireError(f"{name} is another one already")
            check_descriptors(request, len(descriptors))

            def over(record: Record) -> None:
                self._execs.pop(record.id, None)
                ended(record)

            process = self._execs[name] = Exec(self.loop, request, container, descriptors, over)
            taken = True
            if request.zygote is not None:
                self._newest[request.zygote[:2]] = request.zygote
            self._fork(request.zygote or container.zygote, process)
            return process
        finally:
            if not taken:
                wire.close(descriptors)

    def listed(self, record: Record) -> None:
        """A node loop that watches has been told of this container: what it says then is told once."""
        if record.unheard:
            record.unheard.clear()
            self._store.save(record, record.encoded())

    def forget(self, names: Sequence[str]) -> dict[str, str]:
        """Drop the records of these containers, but keep those that have not ended.

        Directories of theirs that are still to be removed are removed all the same (`removals`).

        Returns:
            The logs of those that were dropped, by id.
        """
        ended = [name for name in dict.fromkeys(names) if name in self.records and name not in self._running]
        logs = {name: self.records.pop(name).log for name in ended}
        for log in logs.values():
            self._compressor.forget(log)
        self._store.remove(ended)
        return logs

    def hello(self, request: messages.Hello) -> None:
        """A node loop has greeted."""
        if request.never_at:
            self._broker.never_dial(request.never_at)

    def warm(self, request: messages.Warm) -> None:
        """Have a zygote, and perhaps the broker, ready before they are needed."""
        self._newest[request.zygote[:2]] = request.zygote
        self._zygote(request.zygote)
        self._retire_zygotes()
        if request.network:
            self._broker.warm()

    def check_shutdown(self, force: bool) -> None:
        """Raise what `shutdown` would raise, so that the answer can be sent before the shim leaves."""
        if self._running and not force:
            raise wire.WireError(f"{len(self._running)} containers are running")

    def shutdown(self, force: bool) -> None:
        """Leave. With containers running only if `force`: they are killed, and their ends recorded, first."""
        self.check_shutdown(force)
        self._leaving = True
        for container in list(self._running.values()):
            container.stop(0)
        self._leave_when_done()

    # What happens to containers and zygotes

    def _fork(self, key: ZygoteKey, container: Process) -> None:
        if self._prepare(container):
            try:
                self._zygote(key).start(container)
            except OSError as error:
                container.fail(f"cannot start {key[0]} for the engine: {error.strerror}")

    def _assign_worker(self, key: ZygoteKey, group: str, within: Sequence[str], container: DenseContainer) -> None:
        """Begin a container in a worker of its group, a new one where none has room or may open its files."""
        if not self._prepare(container):
            return
        workers, directories = self._workers.setdefault((key, group), []), container.directories
        worker = next((worker for worker in workers if worker.has_room and worker.may_open(directories)), None)
        if worker is None:
            self._worker_count += 1
            directories |= {path: Directory.named(path) for path in map(os.path.realpath, within)}
            worker = Worker(self.loop, f"worker {self._worker_count}", directories, workers.remove)
            workers.append(worker)
            self._fork(key, worker)
        worker.run(container)

    def _prepare(self, container: Process) -> bool:
        """Make its streams, unless it has them already or has ended meanwhile."""
        if container.stage is not Stage.NEW:
            return container.waits
        try:
            container.prepare()
        except OSError as error:
            container.fail(f"cannot make the container's streams: {error.strerror}")
            return False
        return True

    def _begin_again(self, key: ZygoteKey, begin: Callable[[Any], None], container: Process) -> str | None:
        """The zygote died before this container had a process: try another one, once; else say why not."""
        name, zygote = container.record.id, self._zygotes.get(key)
        if zygote is not None and zygote.error and not zygote.alive:
            return zygote.error
        if name in self._retried:
            return "the engine's process died twice before the guest began"
        self._retried.add(name)
        self.loop.later(0, lambda: begin(container))
        return None

    def _zygote(self, key: ZygoteKey) -> Zygote:
        zygote = self._zygotes.get(key)
        if zygote is None or not zygote.alive:
            idle = min(IDLE_SECONDS, self._idle_exit)
            zygote = self._zygotes[key] = Zygote(self.loop, key.python, key.module, self.groups, self._register, idle)
        return zygote

    def _retire_zygotes(self) -> None:
        """End zygotes whose engine was replaced by another version, once they have no containers left."""
        old = [key for key in self._zygotes if self._newest.get(key[:2], key) != key]
        used = {container.zygote for container in self._running.values()} if old else set()
        for key in old:
            if key not in used:
                self._zygotes.pop(key).kill()

    def _register(self, child: Child) -> bool:
        """The child has told its pid; False where that process has ended already."""
        status = self._unregistered.pop(child.pid, None)
        if status is None:
            self._by_pid[child.pid] = child
        if self._all_registered():
            self._unregistered.clear()
        if status is not None:
            child.reaped(status)
        return status is None

    def _all_registered(self) -> bool:
        return not any(zygote.making for zygote in self._zygotes.values())

    def _changed(self, container: Process) -> None:
        record, data = container.record, container.record.encoded()
        self._store.save(record, data)
        if record.state == wire.ENDED:
            self._running.pop(record.id, None)
            self._retried.discard(record.id)
            if record.leaving:
                self._removals.add(record.leaving)
            self._leave_when_done()
            self.consider_leaving()
            self._retire_zygotes()
        self.on_change(record, data)

    def _refused(self, name: str, what: str) -> None:
        """A container wanted to dial this, and may not."""
        container = self._running.get(name)
        if container is not None and container.record.refuse(what, heard=self._listener.watched):
            self._changed(container)

    def _catch_signals(self) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        self.loop.add(reader, READ, lambda _: self._on_signal(os.read(reader, 4096)))

    def _on_signal(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers:
            self._leaving = True
            for container in list(self._running.values()):
                container.stop(2.0)
            self._leave_when_done()
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._reaped(pid, status)

    def _reaped(self, pid: int, status: int) -> None:
        child = self._by_pid.pop(pid, None)
        if child is not None:
            child.reaped(status)
            return
        for helper in (self._compressor, self._broker):
            if pid == helper.pid:
                helper.reaped(status)
                return
        for zygote in self._zygotes.values():
            if zygote.pid == pid:
                zygote.reaped(status)
                return
        # No child has this pid: its first message has not been read yet, or its zygote is dead. The status is kept only
        # while a child may still claim it, because the system gives the pid to another process one day.
        if self._all_registered():
            self._unregistered.clear()
        else:
            self._unregistered[pid] = status

    # Leaving

    def consider_leaving(self) -> None:
        """Begin or end the time after which a shim that nobody needs ends by itself."""
        needed = self._running or self._listener.connections
        if needed and self._idle is not None:
            self._idle.cancel()
            self._idle = None
        elif not needed and self._idle is None:
            self._idle = self.loop.later(self._idle_exit, lambda: self.shutdown(force=False))

    def _leave_when_done(self) -> None:
        if not self._leaving or self._running:
            return
        # This comes first, because what follows fails where the state directory has been removed.
        self.loop.stopped = True
        self._removals.finish()
        self._store.finish()
        for group in self._workers.values():
            for worker in group:
                worker.retire()
        for zygote in self._zygotes.values():
            zygote.kill()
        self._compressor.stop()
        self._broker.stop()
        self.groups.close()
        self._listener.close()
