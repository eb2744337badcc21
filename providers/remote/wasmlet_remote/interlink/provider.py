"""`PluginProvider`: pods that an interLink plugin runs, as jobs of a batch system for example.

A plugin is handed a pod once and runs it once. It can be told to end it, asked how it is and for its log; there is no
word for anything else, so exec, attach, port-forward and statistics are unsupported, a change of a pod reaches nobody,
and a grace period is the plugin's own affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

import attrs
import httpx

from wasmlet import (
    Clock,
    Inputs,
    LogOptions,
    NodeContext,
    NodeStatus,
    NotFound,
    Pod,
    PodKey,
    PodRecord,
    PodStatus,
    Provider,
    Refused,
    Running,
    SystemClock,
    Terminated,
    WasmletError,
)
from wasmlet.concurrency import in_thread
from wasmlet.model.status import ContainerStatus
from wasmlet.model.times import rfc3339
from wasmlet_remote.interlink import answers
from wasmlet_remote.interlink.bodies import create_body, pod_body
from wasmlet_remote.interlink.config import InterlinkConfig
from wasmlet_remote.interlink.plugin import Plugin, PluginError
from wasmlet_remote.interlink.records import Record, Records

MISSES = 3
MISSED_SECONDS = 60.0
"""A pod counts as lost when the plugin has not known it this often in a row, and for this long.

Some plugins do not know a pod yet that they have just taken, and some answer the request before."""
TROUBLE_SECONDS = 600.0
"""The same where it answers with an error of its own (5xx): some do so for a pod that they do not know, and others
while their batch system is down."""
KILLED_CODE = 137
"""The exit code of a container that was ended, since a plugin does not say how it ended."""


class PluginProvider(Provider[InterlinkConfig]):
    """Runs pods with the plugin at `config.endpoint`."""

    name: ClassVar[str] = "interlink"
    poll_seconds: ClassVar[float] = 5.0

    def __init__(self, config: InterlinkConfig | None = None, *, clock: Clock | None = None) -> None:
        super().__init__(config)
        self._clock = clock or SystemClock()
        self._client: httpx.AsyncClient | None = None
        self._plugin: Plugin
        self._records: Records
        self._creating: dict[str, asyncio.Task[None]] = {}
        self._missed: dict[str, tuple[int, float]] = {}
        """By UID: how often in a row, and since when, the plugin has not known a pod."""
        self._troubled: set[str] = set()
        """UIDs of pods for which the plugin's last answer was an error of its own (5xx)."""

    async def check(self) -> None:
        await self.config.client().aclose()

    async def start(self, context: NodeContext) -> None:
        self._client = self.config.client()
        self._plugin = Plugin(self._client)
        self._records = Records(context.state_dir / "interlink")
        await in_thread(self._records.load)

    async def stop(self) -> None:
        tasks = list(self._creating.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def ping(self) -> None:
        await self._plugin.ping()

    async def node_status(self) -> NodeStatus:
        return NodeStatus(capacity=self.config.resources)

    async def list_pods(self) -> Sequence[PodRecord]:
        found = []
        for record in self._records.all():
            status: PodStatus | None = record.status
            if not record.taken:
                status = await self._status(record)
            if status is not None:
                found.append(PodRecord(record.of.key, status))
        return found

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        uid = pod.uid
        if (record := self._records.get(uid)) is not None and record.taken:
            return
        if (task := self._creating.get(uid)) is None:
            body = create_body(pod, inputs)
            task = self._creating[uid] = asyncio.create_task(self._create(pod, body))
            task.add_done_callback(lambda task: self._created(uid, task))
        # Not cancelled with us: whoever is told that a pod ends has to know whether it began.
        await asyncio.shield(task)

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        if (task := self._creating.get(key.uid)) is not None:
            await asyncio.wait([task])
        record = self._held(key)
        status = record.status if answers.ended(record.status) else await self._status(record)
        try:
            await self._plugin.delete(record.pod)
        except PluginError as error:
            if error.status != 404 and status is not None:
                raise  # it knows the pod, and cannot end it
        await in_thread(self._records.drop, key.uid)
        self._missed.pop(key.uid, None)
        self._troubled.discard(key.uid)
        return _killed(status or record.status, self._clock.now())

    async def pod_status(self, key: PodKey) -> PodStatus:
        record = self._held(key)
        if answers.ended(record.status):
            return record.status
        status = await self._status(record)
        if status is not None:
            self._missed.pop(key.uid, None)
            if status != record.status and self._records.get(key.uid) is record:
                await in_thread(self._records.put, attrs.evolve(record, status=status))
            return status
        times, since = self._missed.get(key.uid, (0, self._clock.monotonic()))
        self._missed[key.uid] = times + 1, since
        patience = TROUBLE_SECONDS if key.uid in self._troubled else MISSED_SECONDS
        if times + 1 < MISSES or self._clock.monotonic() - since < patience:
            return record.status
        await in_thread(self._records.drop, key.uid)
        self._missed.pop(key.uid, None)
        self._troubled.discard(key.uid)
        raise NotFound(f"the interLink plugin has no pod {key} any more")

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        record = self._held(key)
        if record.of.container(container) is None:
            raise NotFound(f"container {container} in pod {key} is not here")
        if options.previous:
            raise NotFound(f"container {container} in pod {key} was never started again")
        if options.tail_lines == 0 and not options.follow:
            return
        left = options.limit_bytes
        stream = self._plugin.logs(_log_body(key, container, options))
        try:
            async for piece in stream:
                yield piece[:left]
                if left is not None and (left := left - len(piece)) <= 0:
                    return
        except PluginError as error:
            if error.status == 404:
                raise NotFound(f"the interLink plugin has no log of container {container} in pod {key}") from None
            raise
        finally:
            await stream.aclose()

    def _held(self, key: PodKey) -> Record:
        if (record := self._records.get(key.uid)) is None:
            raise NotFound(f"pod {key} ({key.uid}) is not here")
        return record

    async def _create(self, pod: Pod, body: Mapping[str, Any]) -> None:
        record = self._records.get(pod.uid)
        if record is None:
            record = Record(pod_body(pod), self._clock.now())
            await in_thread(self._records.put, record)
        elif await self._status(record) is not None:
            await in_thread(self._records.put, attrs.evolve(record, taken=True))
            return
        try:
            job = answers.job_in(await self._plugin.create(body), pod.uid)
        except PluginError as error:
            if error.status not in (400, 422):
                raise  # it may have begun; the next try asks first
            await in_thread(self._records.drop, pod.uid)
            raise Refused("spec", f"the interLink plugin cannot take it: {error.detail or error}") from None
        if job is None:
            raise WasmletError(f"the interLink plugin answered for another pod than {pod.key}")
        await in_thread(self._records.put, attrs.evolve(record, taken=True, job=job))

    def _created(self, uid: str, task: asyncio.Task[None]) -> None:
        del self._creating[uid]
        if not task.cancelled():
            task.exception()  # told by `create_pod`, or nobody waits for it any more

    async def _status(self, record: Record) -> PodStatus | None:
        """What the plugin says of the pod now; None where it does not know it.

        Raises:
            WasmletError: it does not answer.
        """
        uid = record.of.uid
        try:
            answer = await self._plugin.status(record.pod)
        except PluginError as error:  # what a plugin answers for a pod that it does not know differs
            (self._troubled.add if error.status >= 500 else self._troubled.discard)(uid)
            return None
        self._troubled.discard(uid)
        return answers.status_in(answer, record.of, record.created)


def _log_body(key: PodKey, container: str, options: LogOptions) -> dict[str, Any]:
    """`Bytes` is what plugins in Go read, and `LimitBytes` those of the Python SDK, which also wants `Previous`."""
    opts: dict[str, Any] = {
        "Follow": options.follow,
        "Previous": options.previous,
        "Timestamps": options.timestamps,
    }
    if options.tail_lines:
        opts["Tail"] = options.tail_lines
    elif options.limit_bytes:  # with both, some refuse; the rest is cut off here
        opts |= {"Bytes": options.limit_bytes, "LimitBytes": options.limit_bytes}
    if options.since_time is not None:
        opts["SinceTime"] = rfc3339(options.since_time)
    return {
        "Namespace": key.namespace,
        "PodUID": key.uid,
        "PodName": key.name,
        "ContainerName": container,
        "Opts": opts,
    }


def _killed(status: PodStatus, now: datetime) -> PodStatus:
    """The last status of a pod that was ended: what ran was ended by force, as far as anybody knows."""

    def end(container: ContainerStatus) -> ContainerStatus:
        if not isinstance(container.state, Running):
            return container
        ended = Terminated(KILLED_CODE, "Error", started_at=container.state.started_at, finished_at=now)
        return attrs.evolve(container, state=ended)

    return attrs.evolve(
        status,
        containers=tuple(map(end, status.containers)),
        init_containers=tuple(map(end, status.init_containers)),
    )
