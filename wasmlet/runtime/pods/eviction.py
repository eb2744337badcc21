"""Measures how much of the node's disk pods use, and evicts those that exceed a limit, as the kubelet does.

What is measured:

- each emptyDir with a `sizeLimit`;
- for a container with a limit of ephemeral-storage: its logs, and the files that it made outside of its volumes;
- for the sum of a pod's limits: all of that, its emptyDir volumes on disk and its configMaps.

The containers of an evicted pod are ended at once, and the pod is Failed with the reason Evicted. A pod without such
limits is not measured.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import structlog

from wasmlet.clock import Clock
from wasmlet.concurrency import in_thread
from wasmlet.failures import described
from wasmlet.model.pod import Pod, Raw
from wasmlet.model.quantity import Quantity
from wasmlet.model.restart import is_sidecar
from wasmlet.runtime.files import beneath
from wasmlet.runtime.files.staging import staged_for
from wasmlet.runtime.files.volumes import PodVolumes, mounted_volumes
from wasmlet.runtime.logs import files as log_files

log = structlog.get_logger(__name__)

PERIOD = 10.0
"""The kubelet's pause between two measurements, in seconds."""

STORAGE = "ephemeral-storage"


def watched(
    pod: Pod, volumes: PodVolumes, logs: Path, clock: Clock, evict: Callable[[str], None]
) -> contextlib.AbstractAsyncContextManager[None]:
    """Measure the pod meanwhile, and have it fail when it takes too much.

    Args:
        logs: what the paths of the pod's logs begin with.
        evict: called once, with what the pod exceeds, in the kubelet's words.
    """
    if not limited(pod):
        return contextlib.nullcontext()
    return _watched(pod, volumes, logs, clock, evict)


@contextlib.asynccontextmanager
async def _watched(
    pod: Pod, volumes: PodVolumes, logs: Path, clock: Clock, evict: Callable[[str], None]
) -> AsyncIterator[None]:
    watch = asyncio.create_task(_watch(pod, volumes, logs, clock, evict))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.wait([watch])


async def _watch(pod: Pod, volumes: PodVolumes, logs: Path, clock: Clock, evict: Callable[[str], None]) -> None:
    well = True
    while True:
        await clock.sleep(PERIOD)
        try:
            message = await in_thread(excess, pod, volumes, logs)
        except Exception as error:  # of our own, or the node's disk is in trouble: the next measurement is another try
            if well:
                log.warning("eviction: measuring a pod failed", pod=str(pod.key), **described(error))
            well = False
            continue
        well = True
        if message:
            evict(message)
            return


def limited(pod: Pod) -> bool:
    """Whether there is anything to measure."""
    return bool(_volume_limits(pod) or _total_limit(pod))


def excess(pod: Pod, volumes: PodVolumes, logs: Path) -> str:
    """What of the pod exceeds a limit, in the kubelet's words; "" for nothing. Blocks."""
    for name, text in _volume_limits(pod).items():
        if volumes.usage({"name": name, "emptyDir": {}}) > Quantity.parse(text).units():
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{text}". '
    total = _total_limit(pod)
    if not total:
        return ""
    names = [container.name for container in (*pod.init_containers, *pod.containers, *pod.ephemeral_containers)]
    used = {
        name: log_files.disk_space(logs, name) + sum(map(_usage, staged_for(volumes.directory, name))) for name in names
    }
    mounted = mounted_volumes(pod)
    on_disk = [v for v in pod.spec.get("volumes") or () if v["name"] in mounted and _on_disk(v)]
    shared = sum(volumes.usage(volume) for volume in on_disk)
    if sum(used.values()) + shared > total:
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {Quantity.parse(total)}. "
    for name, text in _storage_limits(pod).items():
        if used[name] > Quantity.parse(text).units():
            return f'Container {name} exceeded its local ephemeral storage limit "{text}". '
    return ""


def _volume_limits(pod: Pod) -> dict[str, str]:
    """The emptyDir volumes that may only grow so far, with their limits."""
    if not pod.spec.get("volumes"):
        return {}
    mounted = mounted_volumes(pod)
    found = {v["name"]: str((v.get("emptyDir") or {}).get("sizeLimit") or "0") for v in pod.spec.get("volumes") or ()}
    return {name: text for name, text in found.items() if name in mounted and Quantity.parse(text)}


def _storage_limits(pod: Pod) -> dict[str, str]:
    """The containers that may only take so much, with their limits."""
    found = {c.name: str((c.resources.get("limits") or {}).get(STORAGE) or "0") for c in pod.containers}
    return {name: text for name, text in found.items() if Quantity.parse(text)}


def _total_limit(pod: Pod) -> int:
    """What all containers may take at once, in bytes: init containers run before the others, sidecars beside all."""
    sidecars = before = 0
    for container in pod.init_containers:
        if is_sidecar(container):
            sidecars += _limit(container.resources.get("limits"))
            before = max(before, sidecars)
        else:
            before = max(before, sidecars + _limit(container.resources.get("limits")))
    total = max(before, sidecars + sum(_limit(container.resources.get("limits")) for container in pod.containers))
    return total + _limit(pod.spec.get("overhead")) if total else 0


def _limit(resources: Mapping[str, str] | None) -> int:
    limit = resources.get(STORAGE) if resources else None
    return Quantity.parse(limit).units() if limit else 0


def _on_disk(volume: Raw) -> bool:
    """Whether what is in the volume counts, as with a kubelet."""
    if volume.get("emptyDir") is not None:
        return bool(volume["emptyDir"].get("medium") != "Memory")
    return volume.get("configMap") is not None


def _usage(directory: Path) -> int:
    try:
        return beneath.usage(directory)
    except FileNotFoundError:
        return 0
