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
from functools import partial
from pathlib import Path

import structlog

from wasmlet.clock import Backoff, Clock
from wasmlet.concurrency import Event, first_of, in_thread
from wasmlet.errors import MissingReference, WasmletError
from wasmlet.failures import described
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, Raw
from wasmlet.model.quantity import Quantity
from wasmlet.model.volumes import FILE_VOLUMES, VolumeFile, volume_files
from wasmlet.runtime.files import atomic, beneath, fs_group, memory
from wasmlet.runtime.files.claims import ClaimedVolume
from wasmlet.runtime.files.pod_users import User
from wasmlet.runtime.files.storage import IN_MEMORY, PLUGINS, Storage, Traces, instance_name, pod_in, private
from wasmlet.runtime.files.volume_rules import CLAIMS, kind_of

log = structlog.get_logger(__name__)

MOST_AT_ONCE, MOST_BYTES_AT_ONCE = 32, 128 * 1024
"""Volumes and files together, and bytes in them, that are written to memory for one pod without a thread."""

RETRIES = Backoff(0.5, 122.0, jitter=0.0)
"""The kubelet's pauses before a volume is tried again."""


class _Room:
    """What of a pod's volumes may still be written to memory at once, so that all of it takes no time to speak of."""

    def __init__(self) -> None:
        self._entries, self._bytes = MOST_AT_ONCE, MOST_BYTES_AT_ONCE

    def takes(self, files: Sequence[VolumeFile]) -> bool:
        """Whether a volume with these files may be written, too."""
        self._entries -= 1 + len(files)
        self._bytes -= sum(len(file.data) for file in files)
        return self._entries >= 0 and self._bytes >= 0


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
        """Whether there is no file of the pod."""
        self.traces = Traces()
        """What of it this process knows."""
        self._at_hand = frozenset[str]()
        """The volumes that are in memory, and may be opened at once."""
        self._staged = frozenset[str]()
        self._adopted = False

    def adopt(self) -> None:
        """The pod was begun by an earlier process, so there are files that this one has not made."""
        self._adopted, self.empty = True, False
        self.traces = Traces(known=False, light=False)

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
            self.empty = self.empty and not wanted
            errors = await self._make(pod, wanted, inputs)
            for volume in wanted:
                if volume["name"] in errors:
                    self._say(errors[volume["name"]])
                else:
                    self._made |= {volume["name"]}
            if not errors:
                self._applied = (pod, inputs)
            return [volume["name"] for volume in wanted if volume["name"] in errors and not self._was_made(volume)]

    def _was_made(self, volume: Raw) -> bool:
        """Whether the volume was made before, perhaps by an earlier process; containers may run with what it has."""
        if volume["name"] in self._made:
            return True
        return kind_of(volume) in FILE_VOLUMES and (self._directory(volume) / atomic.DATA).exists()

    async def _make(self, pod: Pod, volumes: Sequence[Raw], inputs: Inputs) -> dict[str, str]:
        """Make or update these volumes; what takes no time at once, and all else in one thread.

        Returns:
            Why some could not be made, by name.
        """
        errors: dict[str, str] = {}
        blocking: list[tuple[str, Callable[[], object]]] = []
        room = _Room()
        for volume in volumes:
            try:
                if work := await self._begin(pod, volume, inputs, room):
                    blocking.append((volume["name"], work))
            except (WasmletError, OSError) as error:
                errors[volume["name"]] = _said(volume["name"], error)
        if blocking:
            errors |= await in_thread(_all_of, blocking)
        return errors

    async def _begin(self, pod: Pod, volume: Raw, inputs: Inputs, room: _Room) -> Callable[[], object] | None:
        """Make or update a volume. What of it may block is returned."""
        kind, name = kind_of(volume), volume["name"]
        if kind in FILE_VOLUMES:
            files, now = volume_files(pod, volume, inputs), self._clock.now()
            quick = kind in IN_MEMORY and self.traces.light and room.takes(files)
            if quick and (base := self.storage.memory.at_hand()) is not None:
                _write(pod_in(base, self._uid) / _below(volume), files, now, _group(pod), self._user_id)
                self._at_hand |= {name}
                return None
            self._at_hand -= {name}
            return partial(self._make_files, pod, volume, files, now)
        if kind == "emptyDir":
            return partial(self._make_empty, pod, volume, inputs)
        if kind in CLAIMS:
            claimed = self._claimed[name] = await self.storage.claims.find(pod, volume, inputs)
            if claimed.gives_group and not self.read_only(volume):
                return partial(_give_claim, pod, claimed.path)
        elif kind != "image":  # which `pods.image_volumes` pulls when a container that mounts it starts
            return partial(self._try, volume)
        return None

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
        """Remove all files of the pod. What the shim removes itself goes a moment later (`worker.supervisor.removals`).

        Raises:
            OSError: some are left.
        """
        if not self.empty:
            await self.storage.remove_pod(self._uid, self.traces)
            self.traces, self.empty = Traces(), True

    def is_at_hand(self, name: str) -> bool:
        """Whether opening this volume takes no disk."""
        return name in self._at_hand

    def staged(self, container: str) -> None:
        """Something may be made for an instance of this container from now on."""
        self.empty = False
        self._staged |= {container}

    def unstaged(self, container: str, attempt: int, *, leaving: bool) -> None:
        """The shim removes what it had made for this instance; `leaving`: some of it may be there still."""
        self.traces.staged.pop(instance_name(container, attempt), None)
        self.traces.leaving = self.traces.leaving or leaving

    def was_staged(self, container: str) -> bool:
        """Whether there may be something of an earlier instance."""
        return container in self._staged or self._adopted

    def use_image(self, volume: Raw, digest: str, directory: Path) -> None:
        """Use this image directory for a volume, and record that the pod uses the image until it is gone; blocks."""
        self.traces.known = False
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
            base = self.storage.memory.at_hand() if volume["name"] in self._at_hand else None
            return (self._memory_directory() if base is None else pod_in(base, self._uid)) / below
        return on_disk

    def _memory_directory(self) -> Path:
        return pod_in(self.storage.memory.find(), self._uid)

    def _make_files(self, pod: Pod, volume: Raw, files: Sequence[VolumeFile], now: datetime) -> None:
        self.traces.known = self.traces.light = False
        _write(self._directory(volume), files, now, _group(pod), self._user_id)

    def _make_empty(self, pod: Pod, volume: Raw, inputs: Inputs) -> None:
        """Make an empty directory, once: what containers have put there stays."""
        source, below = volume["emptyDir"], _below(volume)
        if source.get("medium") == "Memory":
            self.traces.known = self.traces.light = False
            directory = self._make_empty_in_memory(pod, volume, inputs)
        else:
            directory = self._make_on_disk(below)
        group = _group(pod)
        atomic.give(directory, group, self._user_id)
        directory.chmod(0o777 if group is None else 0o2777)

    def _make_on_disk(self, below: Path) -> Path:
        """Make a directory of the pod's, and those above it that are not known to be there."""
        directory, made = self.directory / below, self.traces.directories
        names = [f"{name}/" for name in (*reversed(below.parents[:-1]), below)]
        try:
            if not made:
                private(self.directory)
            for name in names:
                if name not in made:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(f"{self.directory}/{name}", 0o700)
                    made[name] = None
        except FileNotFoundError:  # somebody has removed what we had made
            self.traces.known = False
            private(directory)
        return directory

    def _make_empty_in_memory(self, pod: Pod, volume: Raw, inputs: Inputs) -> Path:
        directory = self._directory(volume)
        private(directory)
        on_disk = directory == self.directory / _below(volume)
        if on_disk and not directory.is_mount():
            size = _memory_size(pod, volume["emptyDir"], inputs)
            if os.geteuid() != 0 or not memory.mount(directory, size):
                directory = self._memory_directory() / _below(volume)
                private(directory)
        return directory

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


def _all_of(works: Sequence[tuple[str, Callable[[], object]]]) -> dict[str, str]:
    """Do all of this; why some has failed, by name."""
    errors: dict[str, str] = {}
    for name, work in works:
        try:
            work()
        except (WasmletError, OSError) as error:
            errors[name] = _said(name, error)
    return errors


def _said(volume: str, error: Exception) -> str:
    """The message of an event."""
    if isinstance(error, MissingReference):  # whose message begins like this already
        return str(error)
    return f'MountVolume.SetUp failed for volume "{volume}" : {error}'


def _write(directory: Path, files: Sequence[VolumeFile], now: datetime, group: int | None, user: int | None) -> None:
    private(directory.parent)
    try:
        os.mkdir(directory)
        new = True
    except FileExistsError:
        new = False
    os.chmod(directory, 0o755)  # whatever this process's umask is
    atomic.write(directory, files, now, group, user, new=new)


def _below(volume: Raw) -> Path:
    return Path("volumes", PLUGINS[kind_of(volume)], str(volume["name"]))
