"""`RuntimeProvider`: runs pods as processes of a WebAssembly engine.

    class MyEngine(Engine):
        ...

    class MyProvider(RuntimeProvider):
        name = "mine"

        def __init__(self, config=None):
            super().__init__(MyEngine(), config)

The provider keeps the pods by UID, finds pods again that ran before it was started, and passes on the shim's records.
`pods` does the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import structlog

from wasmlet.clock import Clock, SystemClock
from wasmlet.concurrency import in_thread
from wasmlet.errors import ConfigError, InvalidInput, NotFound, Refused, WasmletError
from wasmlet.model.hosts import Dns
from wasmlet.model.inputs import HandedImage, Inputs
from wasmlet.model.pod import Pod, PodKey, Raw
from wasmlet.model.status import PodStatus, Waiting
from wasmlet.provider import (
    Change,
    Channel,
    LogOptions,
    NodeContext,
    NodeStatus,
    PodRecord,
    ProbeCount,
    Provider,
    Streams,
)
from wasmlet.runtime import collecting, isolation, machine, resizing
from wasmlet.runtime.assembly import PodsOwner, Setting, assembled
from wasmlet.runtime.changes import Changes
from wasmlet.runtime.config import RuntimeConfig
from wasmlet.runtime.engine import Engine
from wasmlet.runtime.files import spread, volume_rules
from wasmlet.runtime.files.storage import PODS
from wasmlet.runtime.handlers import engines_of
from wasmlet.runtime.logs import reader as logs
from wasmlet.runtime.logs.files import LOGS
from wasmlet.runtime.logs.inotify import Watcher
from wasmlet.runtime.logs.reader import Log
from wasmlet.runtime.network import select
from wasmlet.runtime.node_status import node_status
from wasmlet.runtime.pods import manifest
from wasmlet.runtime.pods.container import ContainerLife
from wasmlet.runtime.pods.pod import PodLife
from wasmlet.runtime.services import RuntimeServices
from wasmlet.runtime.shim.client import ShimError
from wasmlet.runtime.shim.instances import Labels
from wasmlet.runtime.shim.records import ContainerRecord
from wasmlet.runtime.stats.summary import Stats, running_of
from wasmlet.runtime.streams import attach
from wasmlet.runtime.streams.commands import Commands
from wasmlet.runtime.streams.execs import Execs
from wasmlet.runtime.streams.forward import forward
from wasmlet.worker import wire

log = structlog.get_logger(__name__)

SHIM_SECONDS = 2.0
"""How long a node that stops waits for the shim's answers."""


class RuntimeProvider(Provider[RuntimeConfig]):
    """Runs pods over an engine, and over those that `config.engine` adds. Subclasses set `name` and give the engine."""

    name: ClassVar[str] = "runtime"

    def __init__(self, engine: Engine, config: RuntimeConfig | None = None, *, clock: Clock | None = None) -> None:
        super().__init__(config)
        self.engines = engines_of(engine, self.config)
        self._clock = clock or SystemClock()
        self._changes = Changes()
        self._pods: dict[str, PodLife] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._services: RuntimeServices | None = None
        self._watcher: Watcher | None = None
        self._collector: asyncio.Task[None] | None = None
        self._commands: Commands | None = None
        self._execs: Execs | None = None
        self._stats = Stats()
        self._isolation: Mapping[str, str] = {}
        self.state_dir = Path()

    async def check(self) -> None:
        for engine in self.engines:
            await engine.check()
        isolation.check()

    async def remarks(self) -> Sequence[str]:
        """What would isolate guests and cannot be had here, and why."""
        return await isolation.lacking(self.config.users())

    async def start(self, context: NodeContext) -> None:
        modules = self.config.module_dir
        if modules is not None and not await asyncio.to_thread(modules.is_dir):
            raise ConfigError(f"module dir: expected a directory, found none at {modules}; set it with --module-dir")
        await self.check()
        self.state_dir = context.state_dir / "runtime"
        try:
            await in_thread(spread.make, self.state_dir, PODS, LOGS)
            self._watcher = Watcher()
            own = await asyncio.to_thread(machine.name_files)
            dns = Dns(context.cluster_dns, context.cluster_domain, *own)
        except OSError as error:
            raise ConfigError(f"cannot use the state directory {self.state_dir}: {error}") from error
        setting = Setting(
            config=self.config,
            engines=self.engines,
            state_dir=self.state_dir,
            clock=self._clock,
            changes=self._changes,
            dns=dns,
            networks=await select.started(self.config, self.state_dir, context.node),
            commands=self._commands,
        )
        own_claims = type(self).claim_directory is not RuntimeProvider.claim_directory
        owner = PodsOwner(
            saw=self._saw,
            claim_directory=self.claim_directory if own_claims else None,
            background=self._background,
            used=self._used,
            instance=self._instance,
        )
        services, self._execs, words = await assembled(setting, owner)
        self._services = services
        await services.client.start()
        self._isolation = {**services.client.confinement, "user": words}
        log.info("what guests are isolated by", **self._isolation)
        await in_thread(services.storage.remove_orphans, set(self._pods))
        await services.networks.start(set(self._pods))
        default = services.handlers.default
        network = services.networks.node.given(host=True) and default.engine.sockets
        await services.client.warm(default.plain_zygote, network=network)
        work = collecting.collect(services.registries, services.handlers.compilers, self._images, services.storage)
        self._collector = asyncio.create_task(work, name="images")

    async def stop(self) -> None:
        """Leave the shim and what runs in it; a shim in which nothing runs is ended."""
        tasks = [*self._tasks, *([self._collector] if self._collector is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        services, self._services = self._services, None
        if services is not None:
            with contextlib.suppress(ShimError, TimeoutError):
                async with asyncio.timeout(SHIM_SECONDS):
                    await services.client.settled()  # what was just being started keeps its files
                    if all(record.ended for record in services.client.records.values()):
                        await services.client.shutdown(force=False)
            await services.client.close()
            await services.networks.close()
            for compiler in services.handlers.compilers:
                compiler.close()
            await in_thread(services.storage.close, any(not r.ended for r in services.client.records.values()))
            if services.users is not None:
                await in_thread(services.users.close)
            await services.registries.__aexit__(None, None, None)
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        self._pods.clear()

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        """Accept the pod. One that runs already goes on; one that `end_pod` has ended starts anew."""
        services = self.services
        await services.registries.check_brought(inputs.images)
        if (before := self._pods.get(pod.uid)) is not None and before.stopped:
            await self.delete_pod(pod.key, 0)
        if pod.uid not in self._pods:
            engine = self._engine(inputs)
            manifest.check(pod, services.networks.node, sockets=engine is None or engine.sockets)
            if engine is not None:
                engine.check_pod(pod)
            volume_rules.check(pod, host_paths=bool(self.config.allow_host_path), claims=services.storage.claims.any)
            self._pods[pod.uid] = PodLife(services, pod.key)
        self._pods[pod.uid].accept(pod, inputs)
        await asyncio.sleep(0)  # its task begins now, and not after what the caller does next

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        """Take on what has changed; a container whose image changed is started anew."""
        await self.services.registries.check_brought(inputs.images)
        self._life(pod.key).accept(pod, inputs)

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        """End the pod and forget it, as the base class says; directories for termination messages go a moment later.

        The shim removes these about 50 ms after the end of their containers, whatever becomes of this process.
        """
        life = self._life(key)
        final = await life.end(grace_seconds)
        if self._pods.get(key.uid) is life:
            del self._pods[key.uid]
        self._room_made()
        return final

    async def end_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        final = await self._life(key).stop(grace_seconds)
        self._room_made()
        return final

    async def pod_status(self, key: PodKey) -> PodStatus:
        return self._life(key).status()

    async def list_pods(self) -> Sequence[PodRecord]:
        return [PodRecord(life.key, life.status()) for life in self._pods.values()]

    def changes(self) -> AsyncGenerator[Change, None]:
        return self._changes.stream()

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """The container's log; see `wasmlet.runtime.logs.reader`.

        Raises:
            NotFound: the pod, the container or its instance before is not known.
            InvalidInput: the container has not been started.
        """
        life = self._container(key, container)
        record = life.log_of(previous=options.previous)
        if record is None and options.previous:
            raise NotFound(f"previous terminated container {container} in pod {key.name} not found")
        if record is None:
            why = life.state.reason if isinstance(life.state, Waiting) else "ContainerCreating"
            raise InvalidInput(f"container {container} in pod {key.name} is waiting to start: {why}")
        async with contextlib.aclosing(logs.read(self._log(record), options)) as pieces:
            async for piece in pieces:
                yield piece

    def earlier_logs(self, key: PodKey, container: str) -> Sequence[AsyncGenerator[bytes, None]]:
        """The logs of the instances before the present one, oldest first, each line with its time.

        As on a kubelet, an instance's log is removed when its second successor is started; reading it raises NotFound
        from then on.
        """
        life = self._pods.get(key.uid)
        found = life.life(container) if life is not None else None
        earlier = sorted(found.instances.earlier.items()) if found is not None else []
        return [logs.read(self._log(record), LogOptions(timestamps=True)) for _, record in earlier]

    async def exec(self, key: PodKey, container: str, command: Sequence[str], streams: Streams) -> int:
        """A second instance of the container's module; see `wasmlet.runtime.streams.execs`."""
        assert self._execs is not None
        return await self._execs.stream(self._instance(key, container).id, command, streams)

    async def attach(self, key: PodKey, container: str, streams: Streams) -> None:
        """Connect to the container's instance; see `wasmlet.runtime.streams.attach`.

        Raises:
            NotFound: the pod or container is not known, or does not run.
        """
        record = self._instance(key, container)
        await attach.attach(self.services.client, record.id, self._log(record), streams)

    async def port_forward(self, key: PodKey, port: int, channel: Channel) -> None:
        """Connect to a port of the pod, as one of its containers would; see `wasmlet.runtime.streams.forward`.

        Raises:
            NotFound: the pod is not known, or does not run.
            InvalidInput: it has no network, or nothing listens at that port.
        """
        life = self._life(key)
        if not any(container.lives for container in life.containers.values()):
            raise NotFound(f"pod {key.name} is not running")
        await forward(self.services.networks.of(key.uid), key.name, port, channel, life.ports)

    async def stats(self) -> Raw:
        """What the node, its pods and what runs of them take; see `wasmlet.runtime.stats.summary`."""
        began = {life.key: life.start_time.timestamp() for life in self._pods.values() if life.start_time is not None}
        client = self.services.client
        running = running_of(client.records.values(), client.groups)
        return await in_thread(self._stats.summary, running, began, self.state_dir)

    async def node_status(self) -> NodeStatus:
        services = self._services
        remarks = services.networks.remarks() if services is not None else {}
        images = await services.registries.listed() if services is not None else ()
        own = isolation.node_annotations(self._isolation)
        return await node_status(self.engines, self.state_dir, images, {**own, **remarks})

    async def take_blob(self, digest: str, size: int, offset: int, data: bytes) -> int:
        return await self.services.registries.handed.take(digest, size, offset, data)

    async def take_image(self, reference: str, image: HandedImage, *, files: bool) -> Sequence[str]:
        return await self.services.registries.handed.have(reference, image, files=files)

    def probe_counts(self) -> Mapping[ProbeCount, int]:
        """How often the probes of the pods that are here have succeeded and failed (`prober_probe_total`)."""
        return self._services.probe_counts.all() if self._services is not None else {}

    async def ping(self) -> None:
        await self.services.client.ping(self.services.networks.node.api_at())

    async def claim_directory(self, pod: Pod, claim: str) -> Path:
        """The directory that is mounted for a persistentVolumeClaim of this name in the pod's namespace.

        Override it where claims are in a table of your own. The default has them as the API objects say: bound to
        PersistentVolumes of type hostPath, local or nfs, where the node's owner allows it. Called for each pod before
        its containers start, and again after a restart of the node; the directory stays yours. An ephemeral volume's
        claim has the name `<pod>-<volume>`.

        Raises:
            WasmletError: not (yet); the message goes into a FailedMount event, and it is asked again.
        """
        bound = self.services.storage.claims.bound
        return (await in_thread(bound, pod, claim, self._life(pod.key).inputs)).path

    # --- within

    def _room_made(self) -> None:
        for uid in tuple(self.services.deferred):
            if (life := self._pods.get(uid)) is not None:
                life.room_made()

    def _images(self) -> collecting.Used:
        """The images that the pods here need."""
        known = self._services.client.records.values() if self._services is not None else ()
        found = [Labels.of(record.labels) for record in known if not record.ended]
        found += [life.instances.labels for pod in self._pods.values() for life in pod.containers.values()]
        brought = {image.digest for life in self._pods.values() for image in life.inputs.images.values()}
        return collecting.Used({labels.image_id for labels in found if labels is not None}, brought)

    def _engine(self, inputs: Inputs) -> Engine | None:
        """The engine that runs a pod with these inputs; None for a pod that is refused by the name of its handler."""
        try:
            return self.services.handlers.of(inputs.runtime_handler or "").engine
        except Refused:
            return None

    @property
    def services(self) -> RuntimeServices:
        """What all pods share; it is there between `start` and `stop`.

        Raises:
            WasmletError: the provider is not started.
        """
        if self._services is None:
            raise WasmletError(f"provider {self.name} is not started")
        return self._services

    def _container(self, key: PodKey, container: str) -> ContainerLife:
        if (life := self._life(key).life(container)) is None:
            raise NotFound(f"container {container} in pod {key.name} is not known here")
        return life

    def _instance(self, key: PodKey, container: str) -> ContainerRecord:
        """The instance of a container that runs."""
        if (record := self._container(key, container).record) is None or record.state != wire.RUNNING:
            raise NotFound(f"container {container} in pod {key.name} is not running")
        return record

    def _log(self, record: ContainerRecord) -> Log:
        assert self._watcher is not None
        return Log.of(self.services.client, record, self.state_dir, self._watcher)

    def _life(self, key: PodKey) -> PodLife:
        if (life := self._pods.get(key.uid)) is None:
            raise NotFound(f"pod {key} (uid {key.uid}) is not known here")
        return life

    def _saw(self, record: ContainerRecord) -> None:
        if (labels := Labels.of(record.labels)) is None:
            log.warning("the shim has a container that is none of ours", container=record.id)
            return
        if (life := self._pods.get(labels.pod.uid)) is None:
            if self._services is None:
                return
            life = self._pods[labels.pod.uid] = PodLife(self._services, labels.pod)
        life.saw(record, labels)

    def _used(self, key: PodKey) -> resizing.Amounts:
        """What is set aside for all pods but this one."""
        return resizing.added(life.requests() for life in self._pods.values() if life.key != key)

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do this until it is done or the provider stops."""

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.warning("what was begun for a pod failed", error=str(error) or type(error).__name__)

        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(done)
        return task
