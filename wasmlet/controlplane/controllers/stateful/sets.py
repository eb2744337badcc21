"""The controller of StatefulSets: pods with names that stay, made, replaced and ended in order or all at once.

The rules are those of kubernetes/pkg/controller/statefulset. `identity` says what a pod is like, `history` keeps the
revisions of the template, and `claims` makes the volume claims. This module decides what is done, and in which order.
Unlike in a cluster, pods that fail soon are made again after a pause that doubles each time.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from wasmlet.clock import Clock
from wasmlet.controlplane.controllers.recorder import Recorder
from wasmlet.controlplane.controllers.stateful import history, identity
from wasmlet.controlplane.controllers.stateful.claims import Claims
from wasmlet.controlplane.controllers.stateful.history import History
from wasmlet.controlplane.controllers.workloads import pods as podlist
from wasmlet.controlplane.controllers.workloads.adoption import adopt
from wasmlet.controlplane.controllers.workloads.failures import Failures
from wasmlet.controlplane.controllers.workloads.ownership import Ownership, controller_of, uid_of
from wasmlet.controlplane.controllers.workloads.queue import Key, Queue
from wasmlet.controlplane.objects.deletion import Deletion, Options
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage import selectors
from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.status import ApiError, Object
from wasmlet.controlplane.storage.store import Event, Record

PLURAL = "statefulsets"
_MANAGER = "kube-controller-manager"


@attrs.frozen
class _Plan:
    """A StatefulSet with its revisions and pods at one moment.

    Attributes:
        pods: the pods that it should have, by ordinal; None where there is none yet.
        condemned: the pods that it should not have any more, the highest ordinal first.
    """

    owner: Record
    current: Record
    update: Record
    pods: dict[int, Record | None]
    condemned: list[tuple[int, Record]]

    @property
    def ordered(self) -> bool:
        return bool(self.owner.raw["spec"].get("podManagementPolicy") != "Parallel")

    @property
    def partition(self) -> int | None:
        """The partition of a RollingUpdate; None for one without, and for OnDelete."""
        rolling = self.owner.raw["spec"]["updateStrategy"].get("rollingUpdate")
        return int(rolling.get("partition") or 0) if rolling is not None else None

    @property
    def rolling(self) -> bool:
        return bool(self.owner.raw["spec"]["updateStrategy"]["type"] == "RollingUpdate")

    def revision_for(self, number: int) -> Record:
        """The revision that a new pod is made of."""
        kept = self.partition
        if self.rolling and kept is None:
            kept = int((self.owner.raw.get("status") or {}).get("currentReplicas") or 0)
        return self.current if kept and number < identity.start(self.owner.raw) + kept else self.update


class StatefulSets:
    """Makes and deletes pods. `run` does so; it follows the store from its construction."""

    def __init__(self, registry: Registry, deletion: Deletion, ownership: Ownership, clock: Clock) -> None:
        self._registry = registry
        self._store = registry.store
        self._deletion = deletion
        self._ownership = ownership
        self._events = Recorder(registry, "statefulset-controller")
        self._history = History(registry, deletion, ownership)
        self._claims = Claims(registry, self._events)
        self._queue = Queue(clock, self._settle)
        self._failures = Failures("StatefulSet", clock)
        self._store.listeners.append(self._on_change)

    async def run(self) -> None:
        """Follow StatefulSets until cancelled."""
        await self._queue.run()

    # -- what changed

    def _on_change(self, kind: Kind, event: Event) -> None:
        record = event.record
        if kind.key == PLURAL:
            if event.change == "DELETED":
                self._queue.forget(record.key)
                self._failures.forget(uid_of(record.raw))
            else:
                self._queue.add(record.key)
        elif kind.key == "pods":
            old = event.old.raw if event.old is not None and event.change == "MODIFIED" else None
            self._failures.note(old, record.raw, gone=event.change == "DELETED")
            for raw in filter(None, (old, record.raw)):
                self._wake(raw, record)

    def _wake(self, pod: Object, record: Record) -> None:
        """Queue the StatefulSet that controls a pod; for a pod without a controller, the one in the pod's name."""
        reference = controller_of(pod)
        if reference is None:
            name = record.name.rpartition("-")[0]
            if self._store[PLURAL].get(record.namespace, name) is not None:
                self._queue.add((record.namespace, name))
        elif reference.get("kind") == "StatefulSet":
            self._queue.add((record.namespace, str(reference.get("name"))))

    # -- one StatefulSet

    def _settle(self, key: Key) -> float | None:
        record = self._store[PLURAL].get(*key)
        if record is None:
            return None
        if not podlist.leaving(record.raw):
            self._adopt(record)
        current, update, collisions = self._history.settle(record)
        error: ApiError | None = None
        again: float | None = None
        if not podlist.leaving(record.raw):
            try:
                again = self._manage(self._plan(record, current, update))
            except ApiError as refused:
                error = refused
        pods = self._ownership.controlled(record, "pods")
        status = self._status(record, pods, current.name, update.name) | {"collisionCount": collisions}
        if status != (record.raw.get("status") or {}):
            record = self._store.write(core(PLURAL), {**record.raw, "status": status})
        live = {status["currentRevision"], update.name, *(identity.revision_of(pod.raw) for pod in pods)}
        self._history.truncate(record, live)
        if error is not None:
            raise error
        waits = [self._wait(record, pod.raw) for pod in pods]
        return min((seconds for seconds in (again, *waits) if seconds), default=None)

    def _adopt(self, record: Record) -> None:
        def named(raw: Object) -> bool:
            return identity.ordinal(record.name, raw["metadata"]["name"]) is not None

        wanted = selectors.of_object(record.raw["spec"]["selector"])
        adopt(self._store, self._ownership, record, core("pods"), wanted, named)
        self._history.adopt(record)

    def _plan(self, record: Record, current: Record, update: Record) -> _Plan:
        pods: dict[int, Record | None] = dict.fromkeys(identity.ordinals(record.raw))
        condemned = []
        for pod in self._ownership.controlled(record, "pods"):
            number = identity.ordinal(record.name, pod.name)
            if number in pods:
                pods[number] = pod
            elif number is not None:
                condemned.append((number, pod))
        return _Plan(record, current, update, pods, sorted(condemned, key=lambda pair: -pair[0]))

    def _wait(self, record: Record, pod: Object) -> float | None:
        """In how many seconds a pod will be available; 0 where it is, None where it is not ready."""
        least = int(record.raw["spec"].get("minReadySeconds") or 0)
        return podlist.seconds_until_available(pod, least, self._registry.clock.now())

    def _available(self, plan: _Plan, pod: Record | None) -> bool:
        return pod is not None and self._wait(plan.owner, pod.raw) == 0 and not podlist.leaving(pod.raw)

    # -- what is to do

    def _manage(self, plan: _Plan) -> float | None:
        """Take a step towards what the spec asks for. Returns in how many seconds there is more to do, if at all."""
        pause: float | None = None
        for number in plan.pods:
            done, wait = self._tend(plan, number)
            pause = wait if wait is not None else pause
            if not done and plan.ordered:
                return pause
        self._condemn(plan)
        scaling = plan.ordered and plan.condemned
        if plan.rolling and not scaling and None not in plan.pods.values():
            self._roll(plan)
        return pause

    def _tend(self, plan: _Plan, number: int) -> tuple[bool, float | None]:
        """Make sure that the pod of an ordinal is there and as it should be.

        Returns:
            Whether to go on with the next ordinal, and how many seconds to wait, if any.

        Raises:
            ApiError: a pod or a claim is refused.
        """
        pod = plan.pods[number]
        if pod is not None and podlist.finished(pod.raw):
            if not podlist.leaving(pod.raw):
                self._delete(plan.owner, pod)
            pod = plan.pods[number] = self._store["pods"].get(pod.namespace, pod.name)
            return False, None
        if pod is None:
            if self._claims.stale(plan.owner, number):
                return False, None
            if (pause := self._failures.pause(uid_of(plan.owner.raw))) is not None:
                return False, pause
            plan.pods[number] = self._create(plan, number)
            return False, None
        if (pod.raw.get("status") or {}).get("phase") == "Pending":
            self._claims.make(plan.owner, number)
        if plan.ordered and not self._available(plan, pod):
            return False, None
        self._claims.own(plan.owner, pod, number)
        known = pod.raw["metadata"].get("labels") or {}
        if known.get(identity.POD_NAME) != pod.name:
            metadata = {**pod.raw["metadata"], "labels": {**known, **identity.labels(pod.name, number)}}
            call = Call(core("pods"), pod.namespace, pod.name, manager=_MANAGER)
            plan.pods[number] = self._registry.replace(call, pod, {**pod.raw, "metadata": metadata})
        return True, None

    def _condemn(self, plan: _Plan) -> None:
        """Delete the surplus pods. Where the order matters: one at a time, the highest ordinal first."""
        present: list[Record] = [pod for pod in plan.pods.values() if pod is not None]
        everyone = [*present, *(pod for _, pod in reversed(plan.condemned))]
        ill = next((pod for pod in everyone if not self._available(plan, pod)), None)
        for number, pod in plan.condemned:
            self._claims.own(plan.owner, pod, number)
        for _, pod in plan.condemned:
            if podlist.leaving(pod.raw):
                if plan.ordered:
                    return
                continue
            if plan.ordered and not self._available(plan, pod) and pod is not ill:
                return
            self._delete(plan.owner, pod)
            if plan.ordered:
                return

    def _roll(self, plan: _Plan) -> None:
        """Delete the outdated pod with the highest ordinal, once all pods with higher ordinals are available."""
        pods = list(plan.pods.values())
        for at in range(len(pods) - 1, (plan.partition or 0) - 1, -1):
            pod = pods[at]
            if pod is not None and identity.revision_of(pod.raw) != plan.update.name and not podlist.leaving(pod.raw):
                self._delete(plan.owner, pod)
                return
            if not self._available(plan, pod):
                return

    def _create(self, plan: _Plan, number: int) -> Record:
        revision = plan.revision_for(number)
        body = identity.make(plan.owner, history.template_of(revision), revision.name, number)
        name = body["metadata"]["name"]
        try:
            self._claims.make(plan.owner, number)
            made = self._registry.create(Call(core("pods"), plan.owner.namespace, manager=_MANAGER), body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                message = f"Create Pod {name} in StatefulSet {plan.owner.name} failed error: {error.message}"
                self._events.tell(plan.owner, "Warning", "FailedCreate", message)
            raise
        self._claims.own(plan.owner, made, number)
        self._tell(plan.owner, "Create", name)
        return made

    def _delete(self, owner: Record, pod: Record) -> None:
        self._deletion.delete(Call(core("pods"), pod.namespace, pod.name), pod, Options())
        self._tell(owner, "Delete", pod.name)

    def _tell(self, owner: Record, verb: str, pod: str) -> None:
        message = f"{verb} Pod {pod} in StatefulSet {owner.name} successful"
        self._events.tell(owner, "Normal", f"Successful{verb}", message)

    # -- its status

    def _status(self, record: Record, pods: Sequence[Record], current: str, update: str) -> Object:
        there = [pod.raw for pod in pods if identity.ordinal(record.name, pod.name) is not None]
        staying = [pod for pod in there if not podlist.leaving(pod)]
        running = [pod for pod in there if (pod.get("status") or {}).get("phase") == "Running"]
        status = {
            "observedGeneration": record.raw["metadata"]["generation"],
            "replicas": len(there),
            "readyReplicas": sum(podlist.ready_since(pod) is not None for pod in running),
            "availableReplicas": sum(self._wait(record, pod) == 0 for pod in running),
            "currentReplicas": sum(identity.revision_of(pod) == current for pod in staying),
            "updatedReplicas": sum(identity.revision_of(pod) == update for pod in staying),
            "currentRevision": current,
            "updateRevision": update,
        }
        wanted = len(identity.ordinals(record.raw))
        counts = (status["updatedReplicas"], status["readyReplicas"], status["replicas"])
        if record.raw["spec"]["updateStrategy"]["type"] == "RollingUpdate" and counts == (wanted,) * 3:
            status |= {"currentReplicas": wanted, "currentRevision": update}
        shown = ("replicas", "availableReplicas")
        return {key: value for key, value in status.items() if value != 0 or key in shown}
