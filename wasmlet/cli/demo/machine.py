"""The machine of `wasmlet demo --pool`: a node whose pods are the nodes of pools, each a process of its own.

In a cluster such a pod is a container that runs `wasmlet run` with the arguments that the operator chose. Here it is a
process with the same arguments and the token of the same service account, but with this machine's own files. So it
needs neither root nor a container runtime. The process has an address of 127.0.0.0/8 of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs

from wasmlet.cli.demo import child
from wasmlet.clock import Backoff, Clock, SystemClock, either
from wasmlet.errors import NotFound, NotYet, Refused
from wasmlet.kube.config import SERVICE_ACCOUNT
from wasmlet.model.environment import environment
from wasmlet.model.expansion import command_and_args
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Container, Pod, PodKey
from wasmlet.model.status import ContainerStatus, PodStatus, Running, Terminated, Waiting
from wasmlet.model.volumes import volume_files
from wasmlet.operator.node_pod import BOOTSTRAP, STATE
from wasmlet.operator.pool import LABEL
from wasmlet.provider import Change, NodeContext, NodeStatus, PodRecord, Provider, StatusChanged
from wasmlet.runtime.files import atomic

PAUSES = Backoff(initial=1.0, cap=30.0, jitter=0.0)
"""The pauses before a node that ended is started again."""
PROBE_SECONDS = 0.2
PROBE_AGAIN_SECONDS = 5.0
"""The pause between two probes of a node that is ready."""
ADDRESS_TRIES = 100
LOG = "log"
"""The name of a node's log, in the node's directory."""


@attrs.frozen
class Settings:
    """How the nodes are started.

    Attributes:
        server: URL of the API server.
        options: more options of `wasmlet run`.
        variables: of the nodes, where their pool says nothing else.
    """

    server: str
    options: Sequence[str]
    variables: Mapping[str, str]


class Machine(Provider):
    """Runs the pods of pools' nodes; refuses all others."""

    name: ClassVar[str] = "machine"

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        super().__init__()
        self._settings = settings
        self._clock = clock or SystemClock()
        self._pods: dict[str, _NodePod] = {}
        self._changes: asyncio.Queue[Change] = asyncio.Queue()
        self._directory = Path()

    async def start(self, context: NodeContext) -> None:
        self._directory = context.state_dir

    async def stop(self) -> None:
        """End every process; nobody would find them again."""
        async with asyncio.TaskGroup() as group:
            for pod in self._pods.values():
                group.create_task(pod.end(0))
        self._pods.clear()

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        if pod.uid not in self._pods:
            _check(pod)
            directory = self._directory / pod.uid[:8]  # short, since sockets of the node lie below it
            self._pods[pod.uid] = _NodePod(
                pod, inputs, directory, self._settings, self._clock, self._changes.put_nowait
            )

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        await self._found(pod.key).update(pod, inputs)

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        pod = self._found(key)
        await pod.end(grace_seconds)
        await asyncio.to_thread(shutil.rmtree, pod.directory, ignore_errors=True)
        self._pods.pop(key.uid, None)
        return pod.status()

    async def pod_status(self, key: PodKey) -> PodStatus:
        return self._found(key).status()

    async def list_pods(self) -> Sequence[PodRecord]:
        return [PodRecord(pod.key, pod.status()) for pod in self._pods.values()]

    async def changes(self) -> AsyncGenerator[Change, None]:
        while True:
            yield await self._changes.get()

    async def node_status(self) -> NodeStatus:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return NodeStatus(capacity={"cpu": str(os.cpu_count() or 1), "memory": str(memory)})

    def _found(self, key: PodKey) -> _NodePod:
        try:
            return self._pods[key.uid]
        except KeyError:
            raise NotFound(f"pod {key} is not here") from None


def _check(pod: Pod) -> None:
    """Refuse what is not a node of a pool, and what such a node needs a container or another identity for.

    Raises:
        Refused: names the field.
    """
    if LABEL not in pod.labels or len(pod.containers) != 1:
        raise Refused("metadata.labels", f"this machine runs nodes of pools alone, which have the label {LABEL}")
    if pod.containers[0].command:
        raise Refused("spec.containers[0].command", "is not supported in the demo; leave it out of the pool's nodePod")
    if BOOTSTRAP in pod.annotations:
        raise Refused("metadata.annotations", "the demo's pools have identity Impersonate")
    if _token_volume(pod) is None:
        raise Refused("spec.automountServiceAccountToken", "the node needs the token of its service account")


def _token_volume(pod: Pod) -> Any:
    """The volume with the token of the pod's service account."""
    mounts = pod.containers[0].raw.get("volumeMounts") or ()
    name = next((mount["name"] for mount in mounts if mount["mountPath"] == str(SERVICE_ACCOUNT)), None)
    return next((volume for volume in pod.spec.get("volumes") or () if volume["name"] == name), None)


class _NodePod:
    """One node of a pool: its process, started again whenever it ends, until `end`."""

    def __init__(
        self,
        pod: Pod,
        inputs: Inputs,
        directory: Path,
        settings: Settings,
        clock: Clock,
        publish: Callable[[StatusChanged], None],
    ) -> None:
        self.directory = directory
        self._token = directory / "token"
        self._pod = pod
        self._inputs = inputs
        self._settings = settings
        self._clock = clock
        self._publish = publish
        self._container: Container = pod.containers[0]
        self._port = int(self._container.raw["ports"][0]["containerPort"])
        self._ip = _free_address(self._port)
        self._since = clock.now()
        self._ending = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._writing = asyncio.Lock()
        """Held while a thread writes the node's files."""
        self._status = ContainerStatus(self._container.name, image=self._container.image)
        self._task = asyncio.create_task(self._run(), name=f"pod {self.key}")

    @property
    def key(self) -> PodKey:
        return self._pod.key

    def status(self) -> PodStatus:
        return PodStatus((self._status,), pod_ips=(self._ip,), start_time=self._since)

    async def update(self, pod: Pod, inputs: Inputs) -> None:
        """Take over a newer token."""
        self._pod, self._inputs = pod, inputs
        async with self._writing:
            with contextlib.suppress(Refused):
                await asyncio.to_thread(self._write_token)

    async def end(self, grace_seconds: float) -> None:
        """SIGTERM, and SIGKILL when the grace period is over; return when the process has ended."""
        self._ending.set()
        self._signal(force=False)
        try:
            await asyncio.wait([self._task], timeout=grace_seconds)
        finally:
            self._signal(force=True)  # in the case of a cancelled call, too
        await asyncio.wait([self._task])

    def _signal(self, *, force: bool) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill() if force else self._process.terminate()

    async def _run(self) -> None:
        pauses = PAUSES.pauses()
        while not self._ending.is_set():
            try:
                async with self._writing:
                    words, variables = await asyncio.to_thread(self._prepare)
                process = await self._started(words, variables)
            except Refused as error:
                self._set(Waiting(error.reason, str(error)))
            except OSError as error:
                self._set(Waiting("CreateContainerError", f"the node cannot be started: {error}"))
            else:
                ended = await self._end_of(process)
                if self._ending.is_set():
                    return
                restarts = self._status.restart_count + 1
                self._set(Waiting("CrashLoopBackOff"), last_state=ended, restart_count=restarts)
            await either(self._clock, next(pauses), self._ending)

    async def _started(self, words: Sequence[str], variables: Mapping[str, str]) -> asyncio.subprocess.Process:
        with await asyncio.to_thread((self.directory / LOG).open, "ab") as log:
            return await child.start(["run", *words], log, variables)

    async def _end_of(self, process: asyncio.subprocess.Process) -> Terminated:
        """Tell of the process that runs, wait for its end, and tell of that."""
        self._process, started = process, self._clock.now()
        if self._ending.is_set():
            self._signal(force=False)
        identity = f"process://{process.pid}-{started.timestamp():.0f}"
        self._set(Running(started), ready=False, container_id=identity)
        probing = asyncio.create_task(self._probe())
        try:
            code = await process.wait()
        finally:
            probing.cancel()
            self._process = None
        await asyncio.gather(probing, return_exceptions=True)
        ended = Terminated(
            128 - code if code < 0 else code,
            signal=-code if code < 0 else None,
            started_at=started,
            finished_at=self._clock.now(),
            container_id=identity,
        )
        self._set(ended, ready=False)
        return ended

    async def _probe(self) -> None:
        """Whether something listens at the node's port: the readiness probe of its pod."""
        while True:
            try:
                _, writer = await asyncio.open_connection(self._ip, self._port)
            except OSError:
                ready = False
            else:
                writer.close()
                ready = True
            if ready != self._status.ready:
                self._set(self._status.state, ready=ready)
            await self._clock.sleep(PROBE_AGAIN_SECONDS if ready else PROBE_SECONDS)

    def _prepare(self) -> tuple[list[str], dict[str, str]]:
        """Write the credentials, and make the arguments and variables of `wasmlet run`. Blocks.

        Raises:
            Refused: something is missing that the manifest refers to.
        """
        self._write_token()
        kubeconfig = self.directory / "kubeconfig"
        kubeconfig.write_text(json.dumps(_kubeconfig(self._settings.server, self._token)))
        found = environment(self._pod, self._container, self._inputs, [self._ip]).variables
        _, args = command_and_args(self._container, found)
        words = [word.replace(STATE, str(self.directory)) for word in args]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WASMLET_", "KUBE"))}
        given = {name: value for name, value in found.items() if name.startswith("WASMLET_")}
        options = [f"--kubeconfig={kubeconfig}", *self._settings.options]
        return [*words, *options], {**inherited, **self._settings.variables, **given}

    def _write_token(self) -> None:
        files = volume_files(self._pod, _token_volume(self._pod), self._inputs)
        self._token.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic.write(self._token, files, self._clock.now(), None)

    def _set(self, state: Waiting | Running | Terminated, **fields: Any) -> None:
        self._status = attrs.evolve(self._status, state=state, **fields)
        self._publish(StatusChanged(self.key, self.status()))


def _kubeconfig(server: str, token: Path) -> dict[str, Any]:
    cluster = {"server": server, "certificate-authority": str(token / "ca.crt")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "demo", "cluster": cluster}],
        "users": [{"name": "node", "user": {"tokenFile": str(token / "token")}}],
        "contexts": [{"name": "demo", "context": {"cluster": "demo", "user": "node"}}],
        "current-context": "demo",
    }


def _free_address(port: int) -> str:
    """An address of loopback at which nobody has the port.

    Raises:
        NotYet: none of those that were tried can be had.
    """
    why = ""
    for _ in range(ADDRESS_TRIES):
        address = f"127.{random.randrange(128, 192)}.{random.randrange(256)}.{random.randrange(1, 255)}"
        try:
            socket.create_server((address, port)).close()
        except OSError as error:
            why = error.strerror or str(error)
        else:
            return address
    raise NotYet(f"no address of loopback can be had for port {port}: {why}", "CreateContainerError")
