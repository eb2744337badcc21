"""A provider that keeps its pods in memory and runs nothing.

It does all that the contract of `wasmlet.provider` asks and no more, so it shows an author what is needed, tests of the
node loop what is relied on, and benchmarks what the node loop itself costs. `finish` and `log` play the guest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import attrs

from wasmlet.errors import NotFound
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.model.status import ContainerStatus, PodStatus, Running, Terminated
from wasmlet.provider import Change, LogOptions, NodeChanged, NodeStatus, PodRecord, Provider, StatusChanged

T = TypeVar("T")


@attrs.define
class _Held:
    key: PodKey
    status: PodStatus
    pod: Pod


class ReferenceProvider(Provider):
    """Every container of a pod runs from its creation until `finish` or its deletion."""

    name = "reference"

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        self.pods: dict[str, _Held] = {}
        self.created: list[PodKey] = []
        """Every pod that was ever started, in order: a key that is here twice has run twice."""
        self.updated: list[PodKey] = []
        """Every update, in order."""
        self.inputs: dict[str, Inputs] = {}
        """What each pod was last handed, by UID."""
        self._logs: dict[tuple[str, str], list[bytes]] = {}
        self._changes: asyncio.Queue[Change] = asyncio.Queue()
        self._touched = asyncio.Event()

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        self.inputs[pod.uid] = inputs
        if pod.uid in self.pods:
            return
        now = datetime.now(UTC)
        running = tuple(
            ContainerStatus(c.name, Running(now), image=c.image, container_id=f"reference://{pod.uid}/{c.name}")
            for c in pod.containers
        )
        self.created.append(pod.key)
        self._set(_Held(pod.key, PodStatus(containers=running, start_time=now), pod))

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        self._held(pod.key).pod = pod
        self.inputs[pod.uid] = inputs
        self.updated.append(pod.key)
        self._touched.set()

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        held = self._held(key)
        del self.pods[key.uid]
        self._touched.set()
        return _ended(held.status, 143)

    async def pod_status(self, key: PodKey) -> PodStatus:
        return self._held(key).status

    async def list_pods(self) -> Sequence[PodRecord]:
        return [PodRecord(held.key, held.status) for held in self.pods.values()]

    async def changes(self) -> AsyncGenerator[Change, None]:
        while True:
            yield await self._changes.get()

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        self._held(key)
        lines = self._logs.get((key.uid, container), [])
        for line in lines[-options.tail_lines :] if options.tail_lines else lines if options.tail_lines is None else []:
            yield line

    async def node_status(self) -> NodeStatus:
        return NodeStatus(capacity={"cpu": "1000", "memory": "1000Gi"})

    async def until(self, check: Callable[[], T], seconds: float = 20.0) -> T:
        """What `check` returns once that is true; looked at whenever the node loop has asked for something.

        Raises:
            TimeoutError: it did not become true within that many seconds.
        """
        async with asyncio.timeout(seconds):
            while not (found := check()):
                self._touched.clear()
                await self._touched.wait()
        return found

    # --- the guest's part

    def finish(self, key: PodKey, exit_code: int = 0, container: str | None = None) -> None:
        """The pod's containers, or only that one, end by themselves."""
        held = self._held(key)
        held.status = _ended(held.status, exit_code, container)
        self._set(held)

    def node_changed(self) -> None:
        """The node's status is to be looked at again."""
        self._changes.put_nowait(NodeChanged())

    def log(self, key: PodKey, container: str, line: bytes) -> None:
        """The container writes a line."""
        self._logs.setdefault((key.uid, container), []).append(line)

    def _held(self, key: PodKey) -> _Held:
        try:
            return self.pods[key.uid]
        except KeyError:
            raise NotFound(f"pod {key} ({key.uid}) is not here") from None

    def _set(self, held: _Held) -> None:
        self.pods[held.key.uid] = held
        self._touched.set()
        self._changes.put_nowait(StatusChanged(held.key, held.status))


def _ended(status: PodStatus, exit_code: int, only: str | None = None) -> PodStatus:
    """The same with every container that runs ended, or only the one of that name."""
    now = datetime.now(UTC)

    def end(container: ContainerStatus) -> ContainerStatus:
        if not isinstance(container.state, Running) or only not in (None, container.name):
            return container

        state = Terminated(exit_code, started_at=container.state.started_at, finished_at=now)
        return attrs.evolve(container, state=state)

    return attrs.evolve(status, containers=tuple(map(end, status.containers)))
