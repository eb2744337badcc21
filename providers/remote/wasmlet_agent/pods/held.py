"""What an agent knows of one pod."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs

from wasmlet.errors import InvalidInput
from wasmlet.model.pod import Pod, PodKey
from wasmlet.model.status import PodStatus
from wasmlet_agent.pods.fences import Fence
from wasmlet_agent.pods.store import KeptPod
from wasmlet_agent.protocol.messages import ListedPod, PodRequest


@attrs.define(eq=False)
class Ending:
    """A pod that is being ended.

    Attributes:
        deadline: when its grace is over, on the monotonic clock.
        failure: what the last try has raised; None while one goes on.
        again: set to try again at once.
        done: the provider has ended it; only its last status has still to be written to disk.
        keeps: its logs stay (`Provider.end_pod`).
    """

    deadline: float
    fence: Fence
    keeps: bool = False
    task: asyncio.Task[Any] | None = None
    failure: Exception | None = None
    again: asyncio.Event = attrs.field(factory=asyncio.Event)
    done: bool = False


@attrs.define(eq=False)
class Held:
    """What the agent has of one pod.

    Attributes:
        here: whether the agent has accepted the pod, or is accepting it at this moment.
        instead: the status to report while the provider does not know the pod (see `unseen`); None otherwise.
        last: its newest status.
        calls: the tasks that create or update it, or wait for their turn to do so.
        stopped: it was ended, and its logs stay until it is deleted.
        syncs: done when it is on the disk, or cannot be; nobody is told a status before.
    """

    key: PodKey
    here: bool = False
    kept: KeptPod | None = None
    instead: PodStatus | None = None
    last: PodStatus | None = None
    lock: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    calls: set[asyncio.Task[Any]] = attrs.field(factory=set)
    ending: Ending | None = None
    stopped: bool = False
    syncs: set[asyncio.Future[None]] = attrs.field(factory=set)

    def tasks(self) -> list[asyncio.Task[Any]]:
        """All tasks that work on this pod now."""
        ending = self.ending.task if self.ending is not None else None
        return [*self.calls, *([ending] if ending is not None else [])]

    def listed(self, status: PodStatus) -> ListedPod:
        """The pod as a message, with this status."""
        return ListedPod(self.key, status, self.digest, self.kept.inputs.images if self.kept is not None else {})

    @property
    def digest(self) -> str:
        return self.kept.digest if self.kept is not None and self.kept.complete else ""


def pod_of(uid: str, request: PodRequest) -> Pod:
    """The pod of a request.

    Raises:
        InvalidInput: it is not the one that the path names, or is no pod.
    """
    metadata = request.pod.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(request.pod.get("spec"), dict):
        raise InvalidInput("pod: expected an object with metadata and spec")
    for name in ("namespace", "name", "uid"):
        if not isinstance(metadata.get(name), str):
            raise InvalidInput(f"pod.metadata.{name}: expected text")
    containers = request.pod["spec"].get("containers")
    named = isinstance(containers, list) and all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in containers
    )
    if not containers or not named:
        raise InvalidInput("pod.spec.containers: expected at least one object with a name")
    if metadata["uid"] != uid:
        raise InvalidInput(f"pod.metadata.uid: expected {uid!r} as in the path, found {metadata['uid'][:40]!r}")
    return Pod(request.pod)


async def on_disk(*pods: Held) -> None:
    """Wait until what is being written of them is on the disk."""
    if syncs := [sync for held in pods for sync in held.syncs]:
        await asyncio.wait(syncs)
