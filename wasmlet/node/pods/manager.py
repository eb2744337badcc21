"""All pods of this node: finds the task that an event is for, and matches provider and API at the start.

`PodManager` is the handler of the pod reflector and reads the provider's changes. A task is kept by UID until the pod
is gone from the API and from the provider. What the provider runs and the API does not know is ended, but only after a
complete list of the API, so that an empty answer or a failed one never ends anything.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, NoReturn

import structlog

from wasmlet.errors import ConfigError
from wasmlet.failures import described, text_of
from wasmlet.memory import Leftovers
from wasmlet.model.pod import Pod, PodKey, Raw
from wasmlet.model.status import PodStatus, Running, Terminated, Waiting
from wasmlet.node.pods import losses
from wasmlet.node.pods.pod_task import PodTask
from wasmlet.node.provider_calls import answer
from wasmlet.node.services import NodeServices
from wasmlet.provider import NodeChanged, PodEvent, PodRecord, StatusChanged

log = structlog.get_logger(__name__)


class PodManager:
    """The pods of one node, by UID.

    Args:
        node_changed: called when the provider says that its node status is another one.
    """

    def __init__(self, services: NodeServices, node_changed: Callable[[], None]) -> None:
        self._services = services
        self._node_changed = node_changed
        self._tasks: dict[str, PodTask] = {}
        self.in_sync = asyncio.Event()
        """A complete list of the API has been seen."""
        self._held: dict[str, PodRecord] = {}
        """What the provider held when it was listed, until a complete list of the API says whose it is."""
        self._revived: dict[str, dict[str, Any]] = {}
        """By UID, pods that a restored API server has again while the task that ended them is not over yet."""
        self._unlisted = ""
        """Why the provider did not list its pods when it was asked last."""
        self._leftovers = Leftovers()
        self._heard: set[str] | None = None
        """While the provider is asked for its list: the UIDs of the pods that it has reported meanwhile; else None."""

    def adopt(self, records: Iterable[PodRecord]) -> None:
        """Take over the provider's list. Call before the reflector runs, and after the stream of changes broke off."""
        for record in records:
            task = self._tasks.get(record.key.uid)
            if task is None:
                self._held[record.key.uid] = record
            elif not self._heard or record.key.uid not in self._heard:
                task.reported(record.status)
        if self.in_sync.is_set():
            self._end_unknown()

    def _end_unknown(self) -> None:
        """End what the provider holds and the API does not know."""
        for record in list(self._held.values()):
            log.info("the API has no such pod: ending it", pod=str(record.key), uid=record.key.uid)
            task = self._tasks[record.key.uid] = self._task(_stub(record.key), record.status)
            task.gone()
        self._held.clear()

    # --- what the API says (Handler of the reflector)

    def synced(self, items: Sequence[dict[str, Any]]) -> None:
        seen = set()
        for item in items:
            seen.add(item["metadata"]["uid"])
            self.applied(item)
        for uid, task in list(self._tasks.items()):
            if uid not in seen:
                self._revived.pop(uid, None)
                task.gone()
        self._end_unknown()
        self.in_sync.set()

    def rewound(self) -> None:
        """The API server was restored from a backup: what we know of its objects may never have been."""
        for task in self._tasks.values():
            task.rewound()

    def applied(self, item: dict[str, Any]) -> None:
        item["metadata"].pop("managedFields", None)  # a quarter of a pod's memory, and of no use to a node
        pod = Pod(item)
        task = self._tasks.get(pod.uid)
        if task is not None and item.get("spec") == (spec := task.pod.raw.get("spec")):
            item["spec"] = spec  # which the provider has, too, of the version that it was given
        if task is not None and task.revived(pod):
            self._revived[pod.uid] = item
            task.gone()
            return
        if task is not None:
            task.applied(pod)
            return
        record = self._held.pop(pod.uid, None)
        task = self._tasks[pod.uid] = self._task(pod, record.status if record else None)
        if record is not None:
            task.reported(losses.in_service(record.status, pod.status))
        task.wake()

    def deleted(self, item: Raw) -> None:
        self._revived.pop(item["metadata"]["uid"], None)
        if (task := self._tasks.get(item["metadata"]["uid"])) is not None:
            task.gone()

    def inputs_changed(self, uid: str) -> None:
        """Something that the pod refers to has changed."""
        if (task := self._tasks.get(uid)) is not None:
            task.inputs_changed()

    # --- what the provider says

    async def follow(self) -> None:
        """Read the provider's changes for ever; one that has no stream is polled.

        Raises:
            ConfigError: the provider cannot go on.
        """
        provider = self._services.provider
        pauses, first, again = self._services.backoff.pauses(self._services.rng), True, False
        while True:
            began, changed = self._services.clock.monotonic(), False
            try:
                changes = provider.changes()
                if changes is None:
                    await self._poll(provider.poll_seconds)
                # The stream is opened before the list is asked for, so that no change falls between them.
                listing = asyncio.create_task(self._list(again=again))
                again = True
                try:
                    async with aclosing(changes) as stream:
                        async for change in stream:
                            self._change(change)
                            changed = True
                finally:
                    listing.cancel()
                    await asyncio.wait([listing])
                log.warning("the provider's changes ended; listing its pods and following again")
            except ConfigError:
                raise  # for the user: it would be the same again
            except Exception as error:
                log.warning("the provider's changes broke off", **described(error, first=first))
                first = False
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                log.warning("the provider cancelled its own changes; following again")
            lasted = self._services.clock.monotonic() - began > self._services.backoff.cap
            first = first or lasted
            if changed or lasted:
                pauses = self._services.backoff.pauses(self._services.rng)
            await self._services.clock.sleep(next(pauses))

    async def load(self) -> str:
        """Ask the provider once for what it holds; what is wrong with its answer, or ""."""
        return "" if await self._records() is not None else self._unlisted

    async def _list(self, *, again: bool) -> None:
        """Match what the provider holds with what we know. What it reports meanwhile is newer than its list.

        Args:
            again: the stream of changes broke off. The provider may have started anew and know less than it was told,
                so each pod on its list is handed to it again.
        """
        pauses = self._services.backoff.pauses(self._services.rng)
        while True:
            known = {uid for uid, task in self._tasks.items() if task.accepted}
            if (records := await self._records()) is not None:
                break
            await self._services.clock.sleep(next(pauses))
        for uid in known - {record.key.uid for record in records}:
            if (task := self._tasks.get(uid)) is not None:
                task.ask()
        for record in records if again else ():
            self.inputs_changed(record.key.uid)

    async def _records(self) -> Sequence[PodRecord] | None:
        """The provider's list of pods, which has been taken over (`adopt`); None if the call failed."""
        provider = self._services.provider
        self._heard = set()
        try:
            records = await answer(provider.name, provider.list_pods(), self._services.call_seconds)
            self.adopt(records)
        except Exception as error:  # whatever a provider raises must not end the node
            log.warning(
                "the provider's pods cannot be listed, trying again", **described(error, first=not self._unlisted)
            )
            self._unlisted = f"provider {provider.name} could not list its pods: {text_of(error)}"
            return None
        finally:
            self._heard = None
        self._unlisted = ""
        return records

    def _change(self, change: StatusChanged | PodEvent | NodeChanged) -> None:
        match change:
            case StatusChanged(key, status):
                if self._heard is not None:
                    self._heard.add(key.uid)
                if (task := self._tasks.get(key.uid)) is not None:
                    task.reported(status)
            case PodEvent(key, reason, message, kind, field):
                if (task := self._tasks.get(key.uid)) is not None:
                    task.event(kind, reason, message, field)
            case NodeChanged():
                self._node_changed()

    async def _poll(self, seconds: float) -> NoReturn:
        """Have every pod asked for its status, each by its own task: one that does not answer delays no other."""
        while True:
            for task in list(self._tasks.values()):
                task.ask()
            await self._services.clock.sleep(seconds)

    def _task(self, pod: Pod, known: PodStatus | None) -> PodTask:
        return PodTask(self._services, pod, self._ended, known=known)

    def _ended(self, task: PodTask) -> None:
        del self._tasks[task.key.uid]
        self._services.events.forget(task.key.uid)
        self._leftovers.add()
        if (item := self._revived.pop(task.key.uid, None)) is not None:
            self.applied(item)

    # --- what others ask (the kubelet's API, the node's end)

    def find(self, namespace: str, name: str, uid: str | None = None) -> PodTask | None:
        """The pod with that name, and with that UID if one is given. Of several, one that is not being deleted."""
        found = [
            task
            for task in self._tasks.values()
            if task.pod.name == name and task.pod.namespace == namespace and (uid is None or task.pod.uid == uid)
        ]
        return min(found, key=lambda task: task.leaving, default=None)

    def phases(self) -> dict[str, int]:
        """How many pods the API has in each phase."""
        return Counter(task.phase for task in self._tasks.values())

    def container_states(self) -> dict[str, int]:
        """How many containers wait, run and have ended, in the kubelet's words for these."""
        names = {Waiting: "created", Running: "running", Terminated: "exited"}
        statuses = (task.status for task in self._tasks.values())
        return Counter(
            names[type(container.state)]
            for status in statuses
            if status is not None
            for container in (*status.init_containers, *status.containers, *status.ephemeral_containers)
        )

    def leave(self) -> None:
        """The node ends: nothing new is begun for any pod."""
        self._leftovers.close()
        for task in self._tasks.values():
            task.leave()

    def all(self) -> Sequence[PodTask]:
        """Every pod, in no order."""
        return tuple(self._tasks.values())


def _stub(key: PodKey) -> Pod:
    """A pod of which nothing is known but who it was."""
    return Pod({"metadata": {"namespace": key.namespace, "name": key.name, "uid": key.uid}})
