"""One container: a process at a time, started, probed, and started again where its pod says so."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
from wasmlet_processes.log import Log
from wasmlet_processes.process import ProcessGroup

from tests.shared.pods_as_processes import launcher
from tests.shared.pods_as_processes.images import Image
from tests.shared.pods_as_processes.volumes import PodFiles
from wasmlet import (
    Backoff,
    Clock,
    Container,
    ContainerStatus,
    Inputs,
    NotFound,
    Pod,
    Refused,
    Running,
    Terminated,
    Waiting,
    command_and_args,
    environment,
)
from wasmlet.concurrency import first_of
from wasmlet.model.hosts import hostname
from wasmlet.model.restart import restarts
from wasmlet.runtime.pods.actions import Asked
from wasmlet.runtime.pods.probes import Prober, ProbeServices
from wasmlet.runtime.probe_counts import ProbeCounts
from wasmlet.runtime.shim.instances import Target

PAUSES = Backoff(initial=1.0, cap=30.0, jitter=0.0)
LOG_BYTES = 64 * 1024 * 1024
CHUNK = 64 * 1024
LAST_OUTPUT = 1.0
"""Seconds that output is waited for once a process has ended, should a child hold it open."""

Tell = Callable[[Literal["Normal", "Warning"], str, str], None]


@attrs.define
class Sandbox:
    """What the containers of a pod share.

    Attributes:
        pod, inputs: as they stand now.
        changed: set, and replaced, when they are other ones.
        ending: the pod is to end: nothing is started any more.
        api_server: host and port where pods reach it.
    """

    pod: Pod
    inputs: Inputs
    ip: str
    directory: Path
    files: PodFiles
    clock: Clock
    counts: ProbeCounts
    api_server: tuple[str, int]
    changed: asyncio.Event = attrs.field(factory=asyncio.Event)
    ending: asyncio.Event = attrs.field(factory=asyncio.Event)


class ContainerRun:
    """Runs one container of a pod until the pod ends or the container has ended for good.

    Args:
        publish: called when `status` is another one.
        tell: makes an event about the container.
    """

    def __init__(
        self, sandbox: Sandbox, spec: Container, image: Image, publish: Callable[[], None], tell: Tell
    ) -> None:
        self._sandbox = sandbox
        self._spec = spec
        self._image = image
        self._publish = publish
        self._tell = tell
        self._process: ProcessGroup | None = None
        self._logs: list[Log] = []
        probed = any(spec.raw.get(name) for name in ("readinessProbe", "startupProbe"))
        self._ready = False if probed else None
        self.status = ContainerStatus(spec.name, image=spec.image, image_id=spec.image)

    async def run(self) -> None:
        sandbox, pauses = self._sandbox, PAUSES.pauses()
        while (words := await self._prepared()) is not None:
            ended = await self._run_once(*words)
            if sandbox.ending.is_set() or not restarts(sandbox.pod, self._spec, ended.exit_code):
                return
            message = f"back-off restarting failed container={self._spec.name} pod={sandbox.pod.key}"
            self._set(Waiting("CrashLoopBackOff", message), last_state=ended)
            await first_of(sandbox.ending.wait(), sandbox.clock.sleep(next(pauses)))
            self.status = attrs.evolve(self.status, restart_count=self.status.restart_count + 1)

    async def stop(self, grace: float) -> None:
        """SIGTERM, and SIGKILL when the grace period (seconds) is over; return when the process has ended."""
        if (group := self._process) is None:
            return
        self._tell("Normal", "Killing", f"Stopping container {self._spec.name}")
        group.signal(signal.SIGTERM)
        waiting = asyncio.ensure_future(group.wait())
        try:
            await asyncio.wait([waiting], timeout=grace)
        finally:
            group.signal(signal.SIGKILL)  # in the case of a cancelled call, too: nothing may run on
        await waiting

    def log(self, *, previous: bool) -> Log:
        """The log of this run or of the one before.

        Raises:
            NotFound: there was none.
        """
        index = -2 if previous else -1
        if len(self._logs) < -index:
            raise NotFound(f"container {self._spec.name} was not started{' before' if previous else ' yet'}")
        return self._logs[index]

    async def _prepared(self) -> tuple[list[str], Mapping[str, str]] | None:
        """Command line and variables, once all is there that they refer to; None if the pod ends before."""
        sandbox = self._sandbox
        while not sandbox.ending.is_set():
            changed, pod = sandbox.changed, sandbox.pod
            try:
                await asyncio.to_thread(sandbox.files.write, pod, sandbox.inputs, sandbox.ip, sandbox.clock.now())
                found = environment(pod, self._spec, sandbox.inputs, [sandbox.ip])
                command, args = command_and_args(self._spec, found.variables)
            except Refused as error:
                if self.status.state != Waiting(error.reason, str(error)):
                    self._tell("Warning", "Failed", f"Error: {error}")
                    self._set(Waiting(error.reason, str(error)))
                await first_of(sandbox.ending.wait(), changed.wait())
                continue
            host, port = sandbox.api_server
            service = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)}
            own = {"HOSTNAME": hostname(pod), "HOME": "/"}
            return self._image.words(command, args), {**own, **self._image.variables, **found.variables, **service}
        return None

    async def _run_once(self, words: list[str], variables: Mapping[str, str]) -> Terminated:
        clock = self._sandbox.clock
        log = Log(self._sandbox.directory / f"{self._spec.name}.{self.status.restart_count}.log", LOG_BYTES)
        self._logs = [*self._logs[-1:], log]
        file = await asyncio.to_thread(self._write_bundle, words, variables)
        group, trouble = await start(file)
        self._process, started = group, clock.now()
        identity = f"process://{group.process.pid}-{started.timestamp():.0f}"
        try:
            if trouble:
                await group.wait()
                self._tell("Warning", "Failed", f"Error: {trouble}")
                ended = Terminated(launcher.CANNOT_START, "StartError", trouble, finished_at=clock.now())
                self._set(ended)
                return ended
            if self._sandbox.ending.is_set():
                group.signal(signal.SIGKILL)
            self._tell("Normal", "Started", f"Started container {self._spec.name}")
            self._set(Running(started), container_id=identity, ready=self._ready, started=None)
            code = await self._follow(group, log, clock.monotonic())
        finally:
            group.close()
            log.close()
            self._process = None
        ended = Terminated(
            128 - code if code < 0 else code,
            signal=-code if code < 0 else None,
            started_at=started,
            finished_at=clock.now(),
            container_id=identity,
        )
        self._set(ended, ready=False)
        return ended

    async def _follow(self, group: ProcessGroup, log: Log, began: float) -> int:
        """Keep the output and probe until the process has ended; its exit code, negative for a signal."""
        copying = asyncio.create_task(self._copy(group, log))
        probing = asyncio.create_task(self._probe(began))
        try:
            code = await group.wait()
            await asyncio.wait([copying], timeout=LAST_OUTPUT)
            return code
        finally:
            for task in (copying, probing):
                task.cancel()
            for result in await asyncio.gather(copying, probing, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result

    async def _copy(self, group: ProcessGroup, log: Log) -> None:
        assert group.process.stdout is not None
        while data := await group.process.stdout.read(CHUNK):
            await log.write(data, self._sandbox.clock.now())

    async def _probe(self, began: float) -> None:
        sandbox = self._sandbox
        commands: Any = None  # probes by exec are refused
        prober = Prober(
            self._spec,
            Asked(Target(sandbox.pod.key, self._spec.name), commands, lambda: [sandbox.ip], lambda: None),
            ProbeServices(sandbox.counts, sandbox.clock),
            age=lambda: sandbox.clock.monotonic() - began,
            probed=self._probed,
            say=self._tell,
        )
        if not prober.idle:
            failed = await prober.run(started=False)
            await self.stop(sandbox.pod.termination_grace_seconds if failed.grace is None else failed.grace)

    def _probed(self, *, started: bool | None = None, ready: bool | None = None) -> None:
        if started and not self._spec.raw.get("readinessProbe"):
            ready = True
        told = {"started": started, "ready": ready}
        self._set(self.status.state, **{name: value for name, value in told.items() if value is not None})

    def _write_bundle(self, words: list[str], variables: Mapping[str, str]) -> Path:
        """What the launcher reads, in a file of root's that it removes."""
        sandbox, image = self._sandbox, self._image
        place = sandbox.directory / f"{self._spec.name}.root"
        place.mkdir(exist_ok=True)
        of_pod = sandbox.pod.spec.get("securityContext") or {}
        security = of_pod | (self._spec.raw.get("securityContext") or {})
        groups = [of_pod["fsGroup"]] if "fsGroup" in of_pod else []
        bundle = {
            "root": str(image.root or ""),
            "place": str(place),
            "mounts": [*image.mounts(), *sandbox.files.mounts(sandbox.pod, self._spec)],
            "read_only": bool(security.get("readOnlyRootFilesystem")),
            "hostname": hostname(sandbox.pod),
            "user": security.get("runAsUser", image.user),
            "group": security.get("runAsGroup", image.group),
            "groups": [*groups, *of_pod.get("supplementalGroups", ())],
            "gain": security.get("allowPrivilegeEscalation", True),
            "directory": self._spec.raw.get("workingDir") or "/",
            "words": words,
            "variables": dict(variables),
        }
        file = sandbox.directory / f"{self._spec.name}.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(bundle))
        return file

    def _set(self, state: Waiting | Running | Terminated, **fields: Any) -> None:
        self.status = attrs.evolve(self.status, state=state, **fields)
        self._publish()


async def start(bundle: Path) -> tuple[ProcessGroup, str]:
    """Start the container's program; the process, and what kept it from starting, or ""."""
    reading, writing = os.pipe()
    try:
        group = await ProcessGroup.start(
            [sys.executable, "-S", "-E", launcher.__file__, str(bundle), str(writing)],
            directory="/", variables={}, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, pass_fds=(writing,),
        )  # fmt: skip
    finally:
        os.close(writing)
    reader = asyncio.StreamReader()
    with os.fdopen(reading) as pipe:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            return group, (await reader.read()).decode()
        except asyncio.CancelledError:
            group.close()
            raise
        finally:
            transport.close()
