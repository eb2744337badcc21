"""The volumes of one pod: made before its first container starts, kept up to date, and removed with the pod.

They have the same paths as with a kubelet, `pods/<uid>/volumes/<plugin>/<name>`, in the state directory (mode 0700).
Those with secrets are in a directory in memory (`memory`). If a volume cannot be made, the pod stays Pending with a
FailedMount event, and it is tried again with growing pauses. `mounts` opens the volumes for a container.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import attrs
import structlog

from wasmlet.clock import Backoff, Clock
from wasmlet.concurrency import Event, first_of, in_thread
from wasmlet.errors import MissingReference, WasmletError
from wasmlet.failures import described
from wasmlet.model.hosts import Dns
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, Raw
from wasmlet.model.quantity import Quantity
from wasmlet.model.volumes import FILE_VOLUMES, VolumeFile, volume_files
from wasmlet.runtime.files import atomic, beneath, fs_group, memory
from wasmlet.runtime.files.claims import ClaimedVolume, Claims
from wasmlet.runtime.files.hostpath import HostPaths
from wasmlet.runtime.files.pod_users import User
from wasmlet.runtime.files.volume_rules import CLAIMS, kind_of

log = structlog.get_logger(__name__)

RETRIES = Backoff(0.5, 122.0, jitter=0.0)
"""The kubelet's pauses before a volume is tried again."""

PLUGINS = {
    "configMap": "kubernetes.io~configmap",
    "downwardAPI": "kubernetes.io~downward-api",
    "emptyDir": "kubernetes.io~empty-dir",
    "image": "kubernetes.io~image",
    "projected": "kubernetes.io~projected",
    "secret": "kubernetes.io~secret",
}
PODS = "pods"
"""Where in the state directory, and in the one in memory, the files of pods are."""
IN_MEMORY = frozenset({"secret", "projected", "downwardAPI"})
"""The volumes that a kubelet always has in memory."""


@attrs.frozen
class Storage:
    """What the volumes of all pods of a node have in common.

    Attributes:
        state_dir: of the provider; volumes lie below its `pods`.
        host_paths: what of the node's own files pods may have.
        claims: where the volumes of claims are.
        dns: what goes into pods' hosts and resolv.conf files.
    """

    state_dir: Path
    memory: memory.Memory
    host_paths: HostPaths
    claims: Claims
    dns: Dns

    def directory(self, uid: str) -> Path:
        """Everything on disk of one pod."""
        return Path(f"{self.state_dir}/{PODS}/{beneath.file_name(uid)}")  # each pod asks for it a few times

    def in_memory(self, uid: str) -> Path | None:
        """Everything in memory of one pod, where there is a directory for that."""
        base = self.memory.existing()
        return Path(f"{base}/{PODS}/{beneath.file_name(uid)}") if base else None

    def images(self) -> set[str]:
        """Digests of the images that pods mount; blocks."""
        found = self.state_dir.glob(f"pods/*/volumes/{PLUGINS['image']}/*/*")
        return {path.name.replace("-", ":", 1) for path in found}

    def remove(self, uid: str) -> None:
        """Remove all files of a pod; blocks."""
        directory = self.directory(uid)
        volumes = f"{directory}/volumes/{PLUGINS['emptyDir']}"
        for volume in _names(volumes):
            memory.unmount(Path(volumes, volume))
        beneath.remove(directory)
        if kept := self.in_memory(uid):
            beneath.remove(kept)

    def close(self, running: bool) -> None:
        """The node loop ends; blocks. Where nothing runs, secrets are removed; a pod's next start writes them again."""
        base = self.memory.existing()
        if base is None:
            return
        for name in () if running else _names(base / PODS):
            volumes = base / PODS / name / "volumes"
            for staged in _names(volumes.parent):
                if staged != volumes.name:
                    beneath.remove(volumes.parent / staged)
            for kind in IN_MEMORY:
                beneath.remove(volumes / PLUGINS[kind])
            for directory in (volumes, volumes.parent):
                with contextlib.suppress(OSError):  # an emptyDir is there
                    directory.rmdir()
        self.memory.close()

    def remove_orphans(self, uids: set[str]) -> None:
        """Remove the files of every pod but these: whose end was cut short, or that never ran; blocks."""
        names = {beneath.file_name(uid) for uid in uids}
        bases = [self.state_dir, *filter(None, [self.memory.existing()])]
        found = {name for base in bases for name in _names(base / PODS)}
        for name in found - names:
            self.remove(name)


def _names(directory: Path | str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


class PodVolumes:
    """The volumes of one pod.

    Args:
        say: tells a FailedMount event's message.
    """

    def __init__(self, storage: Storage, clock: Clock, uid: str, say: Callable[[str], None]) -> None:
        self.storage = storage
        self._clock = clock
        self._uid = uid
        self._say = say
        self._made: frozenset[str] = frozenset()
        self._claimed: dict[str, ClaimedVolume] = {}
        self._images: dict[str, Path] = {}
        self._applied: tuple[Pod, Inputs] | None = None
        self._lock = asyncio.Lock()
        self.user: User | None = None
        """The user of the pod's processes; must be set before any volume is made."""
        self.changed = Event()
        """The owner sets this when the pod or its inputs have changed."""
        self.empty = True
        """Whether there is no file of the pod. The owner clears it for a pod that an earlier process began."""

    @property
    def directory(self) -> Path:
        """Everything on disk of the pod."""
        return self.storage.directory(self._uid)

    async def set_up(self, now: Callable[[], tuple[Pod, Inputs]]) -> None:
        """Make every volume that a container mounts, however often that has to be tried.

        Args:
            now: the pod and its inputs as they are.
        """
        for pause in RETRIES.pauses():
            self.changed.clear()
            if not await self.refresh(*now()):
                return
            await first_of(self._clock.sleep(pause), self.changed.wait())

    def kept(self, now: Callable[[], tuple[Pod, Inputs]]) -> contextlib.AbstractAsyncContextManager[None]:
        """Keep the volumes up to date with the pod and its inputs, for the time of the context."""
        if not now()[0].spec.get("volumes"):  # a pod gets none later
            return contextlib.nullcontext()
        return self._kept(now)

    @contextlib.asynccontextmanager
    async def _kept(self, now: Callable[[], tuple[Pod, Inputs]]) -> AsyncIterator[None]:
        keeper = asyncio.create_task(self._keep(now))
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])

    async def _keep(self, now: Callable[[], tuple[Pod, Inputs]]) -> None:
        well = True
        while True:
            await self.changed.wait()
            self.changed.clear()
            try:
                await self.refresh(*now())
            except Exception as error:  # a bug of ours; the next change of the pod tries again
                log.warning("volumes: bringing them up to date failed", uid=self._uid, **described(error, first=well))
                well = False
            else:
                well = True

    async def refresh(self, pod: Pod, inputs: Inputs) -> list[str]:
        """Make missing volumes and update the others. Returns the names of those that could never be made so far."""
        async with self._lock:
            if self._applied is not None and self._applied[0] is pod and self._applied[1] is inputs:
                return []
            mounted = mounted_volumes(pod)
            wanted = [volume for volume in pod.spec.get("volumes") or () if volume["name"] in mounted]
            failed = []
            self.empty = self.empty and not wanted
            for volume in wanted:
                try:
                    await self._make(pod, volume, inputs)
                    self._made |= {volume["name"]}
                except (WasmletError, OSError) as error:
                    failed.append(volume)
                    said = str(error)
                    if not isinstance(error, MissingReference):  # whose message begins like this already
                        said = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {said}'
                    self._say(said)
            if not failed:
                self._applied = (pod, inputs)
            return [volume["name"] for volume in failed if not self._was_made(volume)]

    def _was_made(self, volume: Raw) -> bool:
        """Whether the volume was made before, perhaps by an earlier process; containers may run with what it has."""
        if volume["name"] in self._made:
            return True
        return kind_of(volume) in FILE_VOLUMES and (self._directory(volume) / atomic.DATA).exists()

    async def _make(self, pod: Pod, volume: Raw, inputs: Inputs) -> None:
        kind, name = kind_of(volume), volume["name"]
        if kind in FILE_VOLUMES:
            files = volume_files(pod, volume, inputs)
            directory, group, now = self._directory(volume), _group(pod), self._clock.now()
            await in_thread(_write, directory, files, now, group, self._user_id)
        elif kind == "emptyDir":
            await in_thread(self._make_empty, pod, volume, inputs)
        elif kind in CLAIMS:
            claimed = self._claimed[name] = await self.storage.claims.find(pod, volume, inputs)
            if claimed.gives_group and not self.read_only(volume):
                await in_thread(_give_claim, pod, claimed.path)
        elif kind == "image":
            pass  # `pods.image_volumes` pulls it when a container that mounts it starts
        else:
            await in_thread(self._try, volume)

    def open(self, volume: Raw) -> int:
        """Open a volume that was made: a descriptor (O_PATH) of its directory or file, the caller's; blocks.

        Raises:
            WasmletError, OSError: it cannot be had any more.
        """
        kind, source = kind_of(volume), volume[kind_of(volume)]
        if kind == "hostPath":
            return self.storage.host_paths.open(str(source["path"]), str(source.get("type") or ""))
        if kind in CLAIMS:
            return self._claimed[volume["name"]].open()
        path = self._images[volume["name"]] if kind == "image" else self._directory(volume)
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    async def remove(self) -> None:
        """Remove all files of the pod.

        Raises:
            OSError: some are left.
        """
        if not self.empty:
            await in_thread(self.storage.remove, self._uid)
            self.empty = True

    def use_image(self, volume: Raw, digest: str, directory: Path) -> None:
        """Use this image directory for a volume, and record that the pod uses the image until it is gone; blocks."""
        noted = self._directory(volume) / digest.replace(":", "-")
        private(noted.parent)
        noted.touch()
        self._images[volume["name"]] = directory

    def usage(self, volume: Raw) -> int:
        """How many bytes a volume of ours takes; one that is nested too deep to tell takes more than any limit."""
        try:
            return beneath.usage(self._directory(volume))
        except FileNotFoundError:
            return 0
        except beneath.TooDeep:
            return sys.maxsize

    def _try(self, volume: Raw) -> None:
        os.close(self.open(volume))

    def _directory(self, volume: Raw) -> Path:
        """Where a volume of ours lies."""
        kind, below = kind_of(volume), _below(volume)
        on_disk = self.directory / below
        if kind == "emptyDir":
            # In memory either as a mount, which lies where it would on disk, or there.
            kept = self.storage.in_memory(self._uid)
            return kept / below if kept is not None and (kept / below).is_dir() else on_disk
        if kind in IN_MEMORY:
            return self._memory_directory() / below
        return on_disk

    def _memory_directory(self) -> Path:
        return self.storage.memory.find() / PODS / beneath.file_name(self._uid)

    def _make_empty(self, pod: Pod, volume: Raw, inputs: Inputs) -> None:
        """Make an empty directory, once: what containers have put there stays."""
        source, directory = volume["emptyDir"], self._directory(volume)
        private(directory.parent)
        directory.mkdir(exist_ok=True)
        on_disk = directory == self.directory / _below(volume)
        if source.get("medium") == "Memory" and on_disk and not directory.is_mount():
            size = _memory_size(pod, source, inputs)
            if os.geteuid() != 0 or not memory.mount(directory, size):
                directory = self._memory_directory() / _below(volume)
                private(directory.parent)
                directory.mkdir(exist_ok=True)
        group = _group(pod)
        atomic.give(directory, group, self._user_id)
        directory.chmod(0o777 if group is None else 0o2777)

    @property
    def _user_id(self) -> int | None:
        return None if self.user is None else self.user.id

    def read_only(self, volume: Raw) -> bool:
        """Whether no container may write to the volume, whatever its mounts say: the kubelet's rule for files that it
        writes, and what claim and volume say themselves.
        """
        kind = kind_of(volume)
        if kind not in CLAIMS:
            return kind in FILE_VOLUMES | {"image"}
        claimed = self._claimed.get(volume["name"])
        return bool(volume[kind].get("readOnly") or (claimed is not None and claimed.read_only))


def mounted_volumes(pod: Pod) -> set[str]:
    """Names of the volumes that any container mounts; a kubelet makes no others."""
    containers = (*pod.init_containers, *pod.containers, *pod.ephemeral_containers)
    return {str(mount.get("name")) for container in containers for mount in container.raw.get("volumeMounts") or ()}


def _memory_size(pod: Pod, source: Mapping[str, str], inputs: Inputs) -> int | None:
    """The size of a tmpfs, in bytes: the least of its limit, the containers' memory limits together, and the node's."""
    sizes = [Quantity.parse(inputs.node_allocatable.get("memory") or 0).units()]
    limits = [(container.resources.get("limits") or {}).get("memory") for container in pod.containers]
    if limits and all(limits):
        sizes.append(sum(Quantity.parse(limit).units() for limit in limits if limit))
    sizes.append(Quantity.parse(source.get("sizeLimit") or 0).units())
    return min((size for size in sizes if size > 0), default=None)


def _group(pod: Pod) -> int | None:
    """The pod's fsGroup."""
    group = (pod.spec.get("securityContext") or {}).get("fsGroup")
    return None if group is None else int(group)


def _give_claim(pod: Pod, directory: Path) -> None:
    """What is in a claim becomes the fsGroup's, as far as this process may give files away."""
    group = _group(pod)
    if group is None or os.geteuid() != 0:
        return
    policy = (pod.spec.get("securityContext") or {}).get("fsGroupChangePolicy")
    fs_group.apply(directory, group, only_where_top_differs=policy == "OnRootMismatch")


def private(directory: Path | str) -> None:
    """Make a directory and those above it, for this user alone: a volume itself may be open to all."""
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        private(os.path.dirname(directory))
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)


def _write(directory: Path, files: Sequence[VolumeFile], now: datetime, group: int | None, user: int | None) -> None:
    private(directory.parent)
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)  # whatever this process's umask is
    atomic.write(directory, files, now, group, user)


def _below(volume: Raw) -> Path:
    return Path("volumes", PLUGINS[kind_of(volume)], str(volume["name"]))
