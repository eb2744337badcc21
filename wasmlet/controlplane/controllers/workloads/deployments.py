"""The controller of Deployments: makes a ReplicaSet for each template, and moves pods from the old ones to the new one.

The rules are those of kubernetes/pkg/controller/deployment. `rollout` has the arithmetic, `revisions` knows the
ReplicaSets, and `progress` works out the status. This module decides what is written, and in which order.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from wasmlet.clock import Clock
from wasmlet.controlplane.controllers.recorder import Recorder
from wasmlet.controlplane.controllers.workloads import pods as podlist
from wasmlet.controlplane.controllers.workloads import progress, revisions, rollout
from wasmlet.controlplane.controllers.workloads.adoption import adopt
from wasmlet.controlplane.controllers.workloads.ownership import Ownership, controller_of
from wasmlet.controlplane.controllers.workloads.progress import Progress
from wasmlet.controlplane.controllers.workloads.queue import Key, Queue
from wasmlet.controlplane.objects.deletion import Deletion, Options
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage import selectors
from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.status import ApiError, Object
from wasmlet.controlplane.storage.store import Event, Record
from wasmlet.model.placement import Requirement

_MANAGER = "kube-controller-manager"


@attrs.frozen
class _Sets:
    """The ReplicaSets of a Deployment: the one of its present template, if there is one, and those before it."""

    new: Record | None
    old: list[Record]

    @property
    def all(self) -> list[Record]:
        return [*self.old, *filter(None, (self.new,))]

    @property
    def raw(self) -> tuple[Object | None, list[Object]]:
        """The objects, as `Progress` takes them."""
        return self.new.raw if self.new else None, [record.raw for record in self.all]

    @property
    def active(self) -> list[Record]:
        """Those that have replicas."""
        return [record for record in self.all if rollout.replicas(record.raw)]


class Deployments:
    """Rolls out templates. `run` does so; it follows the store from its construction."""

    def __init__(self, registry: Registry, deletion: Deletion, ownership: Ownership, clock: Clock) -> None:
        self._registry = registry
        self._store = registry.store
        self._deletion = deletion
        self._ownership = ownership
        self._events = Recorder(registry, "deployment-controller")
        self._queue = Queue(clock, self._settle)
        self._store.listeners.append(self._on_change)

    async def run(self) -> None:
        """Follow Deployments until cancelled."""
        await self._queue.run()

    # -- what changed

    def _on_change(self, kind: Kind, event: Event) -> None:
        record = event.record
        if kind.key == "deployments":
            if event.change == "DELETED":
                self._queue.forget(record.key)
            else:
                self._queue.add(record.key)
        elif kind.key == "replicasets":
            for raw in (record.raw, *(() if event.old is None else (event.old.raw,))):
                self._wake(raw, record.namespace)
        elif kind.key == "pods" and (event.change == "DELETED" or podlist.finished(record.raw)):
            self._wake_for_pod(record)

    def _wake(self, replica_set: Object, namespace: str) -> None:
        """Queue the Deployment that controls a ReplicaSet; for one without a controller, all whose selector matches."""
        reference = controller_of(replica_set)
        if reference is not None:
            if reference.get("kind") == "Deployment":
                self._queue.add((namespace, str(reference.get("name"))))
            return
        labels = replica_set["metadata"].get("labels") or {}
        for record in list(self._store["deployments"].spaces.get(namespace, {}).values()):
            if all(requirement.matches(labels) for requirement in _selector(record)):
                self._queue.add(record.key)

    def _wake_for_pod(self, pod: Record) -> None:
        """Queue the Deployment of an ended pod, if its strategy is Recreate: it waits for the end of the old pods."""
        owner = self._ownership.find(str((controller_of(pod.raw) or {}).get("uid")))
        above = controller_of(owner[1].raw) if owner else None
        if above is not None and above.get("kind") == "Deployment":
            found = self._store["deployments"].get(pod.namespace, str(above.get("name")))
            if found is not None and not rollout.rolling(found.raw):
                self._queue.add(found.key)

    # -- one Deployment

    def _settle(self, key: Key) -> float | None:
        record = self._store["deployments"].get(*key)
        if record is None:
            return None
        if podlist.leaving(record.raw):
            self._write(record, self._progress(record).counted(*self._sets(record).raw))
            return None
        adopt(self._store, self._ownership, record, core("replicasets"), _selector(record), lambda raw: True)
        record = self._write(record, self._progress(record).paused())
        record, sets = self._numbered(record)
        if record.raw["spec"].get("paused") or self._was_scaled(record, sets):
            self._scale(record, sets)
            sets = self._sets(record)
            if record.raw["spec"].get("paused"):
                self._clean_up(record, sets.old)
            self._write(record, self._progress(record).counted(*sets.raw))
            return None
        record = self._roll(record, sets) if rollout.rolling(record.raw) else self._recreate(record, sets)
        sets = self._sets(record)
        if progress.complete(record.raw, record.raw.get("status") or {}):
            self._clean_up(record, sets.old)
        now = self._progress(record)
        status = now.rolled(*sets.raw)
        self._write(record, status)
        return now.look_again(status)

    def _progress(self, record: Record) -> Progress:
        return Progress(record.raw, self._registry.clock.now())

    def _sets(self, record: Record) -> _Sets:
        found = revisions.eldest_first(self._ownership.controlled(record, "replicasets"))
        new = revisions.newest(record.raw, found)
        return _Sets(new, [item for item in found if item is not new])

    def _write(self, record: Record, status: Object) -> Record:
        """Replace the status; nothing is written where it has not changed."""
        if status == (record.raw.get("status") or {}):
            return record
        return self._store.write(core("deployments"), {**record.raw, "status": status})

    def _replace(self, plural: str, record: Record, new: Object) -> Record:
        call = Call(core(plural), record.namespace, record.name, manager=_MANAGER)
        return self._registry.replace(call, record, new)

    # -- revisions

    def _numbered(self, record: Record) -> tuple[Record, _Sets]:
        """Give the new ReplicaSet its revision number, and the Deployment's annotations and minReadySeconds.

        Returns:
            The Deployment and its ReplicaSets, as they are then.
        """
        sets = self._sets(record)
        if sets.new is None:
            return record, sets
        number = max((revisions.revision(item.raw) for item in sets.old), default=0) + 1
        new = revisions.annotated(sets.new.raw, record.raw, number)
        least = record.raw["spec"].get("minReadySeconds") or 0
        if (new["spec"].get("minReadySeconds") or 0) != least:
            new = {**new, "spec": {**new["spec"], "minReadySeconds": least}}
        if new is not sets.new.raw:
            sets = attrs.evolve(sets, new=self._replace("replicasets", sets.new, new))
        found = "FoundNewReplicaSet", f'Found new replica set "{new["metadata"]["name"]}"'
        known = progress.condition(record.raw.get("status") or {}, progress.PROGRESSING)
        return self._told(record, revisions.revision(new), None if known else found), sets

    def _told(self, record: Record, number: int, said: tuple[str, str] | None) -> Record:
        """Write the revision number to the Deployment, and `said` (reason and message) to its condition Progressing.

        Returns:
            The Deployment as it is then.
        """
        known = record.raw["metadata"].get("annotations") or {}
        if known.get(revisions.REVISION) != str(number):
            metadata = {**record.raw["metadata"], "annotations": {**known, revisions.REVISION: str(number)}}
            record = self._replace("deployments", record, {**record.raw, "metadata": metadata})
        if said is None or progress.deadline(record.raw) is None:
            return record
        status = record.raw.get("status") or {}
        now = self._progress(record)
        return self._write(record, now.with_condition(status, progress.PROGRESSING, "True", *said))

    def _create(self, record: Record, old: Sequence[Record]) -> Record:
        """Create the ReplicaSet of the present template. Returns the Deployment as it is then.

        Raises:
            ApiError: it is refused, or another one has its name; the status says so.
        """
        number = max((revisions.revision(item.raw) for item in old), default=0) + 1
        body = revisions.make(record, old, number)
        kind = core("replicasets")
        try:
            made = self._registry.create(Call(kind, record.namespace, manager=_MANAGER), body)
        except ApiError as error:
            self._refused(record, body["metadata"]["name"], error)
            raise
        if size := rollout.replicas(made.raw):
            self._tell_scaled(record, made, 0, size)
        return self._told(record, number, ("NewReplicaSetCreated", f'Created new replica set "{made.name}"'))

    def _refused(self, record: Record, name: str, error: ApiError) -> None:
        """Record why a ReplicaSet could not be created.

        Where its name is taken, this counts the collision, so that the next name is another one.
        """
        status = record.raw.get("status") or {}
        if error.reason == "AlreadyExists":
            self._write(record, {**status, "collisionCount": status.get("collisionCount", 0) + 1})
            return
        message = f'Failed to create new replica set "{name}": {error.message}'
        if progress.deadline(record.raw) is not None:
            said = "False", "ReplicaSetCreateError", message
            self._write(record, self._progress(record).with_condition(status, progress.PROGRESSING, *said))
        self._events.tell(record, "Warning", "ReplicaSetCreateError", message)

    def _clean_up(self, record: Record, old: Sequence[Record]) -> None:
        """Delete the oldest ReplicaSets beyond `revisionHistoryLimit` that have no pods."""
        kept = int(record.raw["spec"].get("revisionHistoryLimit", 10))
        alive = [item for item in old if not podlist.leaving(item.raw)]
        alive.sort(key=lambda item: revisions.revision(item.raw))
        for item in alive[: max(0, len(alive) - kept)]:
            status = item.raw.get("status") or {}
            observed = status.get("observedGeneration", 0) >= item.raw["metadata"]["generation"]
            if observed and not status.get("replicas") and not rollout.replicas(item.raw):
                call = Call(core("replicasets"), item.namespace, item.name)
                self._deletion.delete(call, item, Options())

    # -- sizes

    def _resize(self, record: Record, replica_set: Record, size: int) -> bool:
        """Set how many pods a ReplicaSet is to have. Returns whether that number has changed."""
        before = rollout.replicas(replica_set.raw)
        metadata = replica_set.raw["metadata"]
        noted = {**(metadata.get("annotations") or {}), **rollout.noted_sizes(record.raw)}
        new = {
            **replica_set.raw,
            "metadata": {**metadata, "annotations": noted},
            "spec": {**replica_set.raw["spec"], "replicas": size},
        }
        if new != replica_set.raw:
            self._replace("replicasets", replica_set, new)
        if size != before:
            self._tell_scaled(record, replica_set, before, size)
        return size != before

    def _tell_scaled(self, record: Record, replica_set: Record, before: int, size: int) -> None:
        how = "up" if size > before else "down"
        message = f"Scaled {how} replica set {replica_set.name} from {before} to {size}"
        self._events.tell(record, "Normal", "ScalingReplicaSet", message)

    def _was_scaled(self, record: Record, sets: _Sets) -> bool:
        """Whether the Deployment's size has changed since its ReplicaSets were sized."""
        sizes = (rollout.desired(item.raw) for item in sets.active)
        return any(size not in (None, rollout.replicas(record.raw)) for size in sizes)

    def _scale(self, record: Record, sets: _Sets) -> None:
        """Spread a new size over the ReplicaSets, in proportion where a rollout is under way."""
        active = sets.active
        wanted = rollout.replicas(record.raw)
        if len(active) < 2:
            latest = active[0] if active else sets.new or (sets.old[-1] if sets.old else None)
            if latest is not None:
                self._resize(record, latest, wanted)
        elif sets.new is not None and _saturated(record, sets.new):
            for item in active:
                if item is not sets.new:
                    self._resize(record, item, 0)
        elif rollout.rolling(record.raw):
            grows = (rollout.most(record.raw) if wanted else 0) > sum(rollout.replicas(item.raw) for item in active)
            active = revisions.eldest_first(active)
            if grows:
                active.reverse()
            active.sort(key=lambda item: -rollout.replicas(item.raw))
            for item, size in zip(active, rollout.proportions(record.raw, [x.raw for x in active]), strict=True):
                self._resize(record, item, size)

    # -- rollouts

    def _roll(self, record: Record, sets: _Sets) -> Record:
        """A step of a RollingUpdate: make the new ReplicaSet larger, else the old ones smaller."""
        if sets.new is None:
            return self._create(record, sets.old)
        wanted, size = rollout.replicas(record.raw), rollout.replicas(sets.new.raw)
        total = sum(rollout.replicas(item.raw) for item in sets.all)
        if size > wanted:
            self._resize(record, sets.new, wanted)
        elif size == wanted or not self._resize(record, sets.new, rollout.new_size(record.raw, total, size)):
            self._shrink(record, sets, sets.new)
        return record

    def _shrink(self, record: Record, sets: _Sets, new: Record) -> None:
        """Make the old ReplicaSets smaller, unavailable pods first, as long as enough pods are available."""
        least = rollout.replicas(record.raw) - rollout.limits(record.raw)[1]
        total = sum(rollout.replicas(item.raw) for item in sets.all)
        room = total - least - (rollout.replicas(new.raw) - _available(new))
        if room <= 0:
            return
        sizes = {item.name: rollout.replicas(item.raw) for item in sets.old}
        for item in sets.old:
            unhealthy = max(0, min(room, sizes[item.name] - _available(item)))
            sizes[item.name] -= unhealthy
            room -= unhealthy
        spare = max(0, sum(_available(item) for item in sets.all) - least)
        for item in sets.old:
            fewer = min(sizes[item.name], spare)
            sizes[item.name] -= fewer
            spare -= fewer
        for item in sets.old:
            if sizes[item.name] != rollout.replicas(item.raw):
                self._resize(record, item, sizes[item.name])

    def _recreate(self, record: Record, sets: _Sets) -> Record:
        """A step of Recreate: end all old pods, and create new ones only after that."""
        resized = [self._resize(record, item, 0) for item in sets.old if rollout.replicas(item.raw)]
        if any(resized):
            return record
        for item in sets.old:
            running = any(not podlist.finished(pod.raw) for pod in self._ownership.controlled(item, "pods"))
            if running or (item.raw.get("status") or {}).get("replicas"):
                return record
        if sets.new is None:
            return self._create(record, sets.old)
        if rollout.replicas(sets.new.raw) != rollout.replicas(record.raw):
            self._resize(record, sets.new, rollout.replicas(record.raw))
        return record


def _selector(record: Record) -> Sequence[Requirement]:
    return selectors.of_object(record.raw["spec"]["selector"])


def _available(replica_set: Record) -> int:
    return int((replica_set.raw.get("status") or {}).get("availableReplicas") or 0)


def _saturated(record: Record, new: Record) -> bool:
    """Whether the new ReplicaSet has all pods that the Deployment asks for (`IsSaturated`)."""
    wanted = rollout.replicas(record.raw)
    return {rollout.replicas(new.raw), rollout.desired(new.raw), _available(new)} == {wanted}
