"""The controller of Jobs: pods that run to their end, until enough have succeeded or too many failed.

The rules are those of kubernetes/pkg/controller/job, without policies by exit code or index, which `objects.job_rules`
refuses. Ended pods are counted from the store's changes (`tally`), so pods need no finalizer to be counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import attrs

from wasmlet.clock import Clock
from wasmlet.controlplane.controllers.batch import indexes
from wasmlet.controlplane.controllers.batch.tally import Ended, Tally
from wasmlet.controlplane.controllers.recorder import Recorder
from wasmlet.controlplane.controllers.workloads import pods as podlist
from wasmlet.controlplane.controllers.workloads.ownership import Ownership, controller_of, uid_of
from wasmlet.controlplane.controllers.workloads.queue import Key, Queue
from wasmlet.controlplane.objects.conditions import with_condition
from wasmlet.controlplane.objects.deletion import Deletion, Options
from wasmlet.controlplane.objects.job_rules import INDEXED, PLURAL
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.status import ApiError, Object
from wasmlet.controlplane.storage.store import Event, Record
from wasmlet.model.times import parse

_MANAGER = "kube-controller-manager"
BURST = 50
"""How many pods are made before others get their turn on the event loop."""
_END = {"SuccessCriteriaMet": "Complete", "FailureTarget": "Failed"}
"""The final condition of a Job, by the condition that announces it. It is set when the last pod has gone."""


def _true(status: Object, kind: str) -> Object | None:
    found = (item for item in status.get("conditions") or () if item.get("type") == kind)
    return next((item for item in found if item.get("status") == "True"), None)


@attrs.frozen
class _Work:
    """A Job and its pods at one moment: the active ones, and how many are being deleted."""

    owner: Record
    ended: Ended
    active: list[Record]
    terminating: int

    @property
    def spec(self) -> Object:
        spec: Object = self.owner.raw["spec"]
        return spec

    @property
    def indexed(self) -> bool:
        return bool(self.spec.get("completionMode") == INDEXED)

    @property
    def done(self) -> set[int]:
        """The indexes that have succeeded."""
        wanted = int(self.spec.get("completions") or 0)
        return {index for index in self.ended.succeeded.values() if index is not None and index < wanted}

    @property
    def succeeded(self) -> int:
        return len(self.done) if self.indexed else len(self.ended.succeeded)

    @property
    def wanted(self) -> int:
        """How many pods should be active."""
        if self.spec.get("suspend"):
            return 0
        most, completions = int(self.spec["parallelism"]), self.spec.get("completions")
        if completions is None:
            return len(self.active) if self.succeeded else most
        return int(min(most, max(0, completions - self.succeeded)))


class Jobs:
    """Makes pods and counts them. `run` does so; it follows the store from its construction."""

    def __init__(self, registry: Registry, deletion: Deletion, ownership: Ownership, clock: Clock) -> None:
        self._registry = registry
        self._store = registry.store
        self._deletion = deletion
        self._ownership = ownership
        self._clock = clock
        self._events = Recorder(registry, "job-controller")
        self._queue = Queue(clock, self._settle)
        self._tally = Tally(clock)
        self._store.listeners.append(self._on_change)

    async def run(self) -> None:
        """Follow Jobs until cancelled."""
        await self._queue.run()

    def _on_change(self, kind: Kind, event: Event) -> None:
        record = event.record
        if kind.key == PLURAL:
            if event.change == "DELETED":
                self._queue.forget(record.key)
                self._tally.forget(uid_of(record.raw))
            else:
                self._queue.add(record.key)
        elif kind.key == "pods":
            reference = controller_of(record.raw)
            if reference is not None and reference.get("kind") == "Job":
                self._tally.note(record.raw, gone=event.change == "DELETED")
                self._queue.add((record.namespace, str(reference.get("name"))))

    # -- one Job

    def _settle(self, key: Key) -> float | None:
        record = self._store[PLURAL].get(*key)
        if record is None:
            return None
        status = record.raw.get("status") or {}
        if any(_true(status, kind) for kind in _END.values()):
            return self._expire(record, status)
        now = self._registry.now()
        if "startTime" not in status and not record.raw["spec"].get("suspend"):
            status = {**status, "startTime": now}
        decided = next((told for kind in _END if (told := _true(status, kind))), None)
        work = self._work(record)
        again: float | None = None
        error: ApiError | None = None
        if decided is None:
            decided, again = self._failed(work, status)
        if decided is not None:
            self._end(work)
        elif not podlist.leaving(record.raw):
            try:
                pause = self._manage(work)
                again = min((seconds for seconds in (again, pause) if seconds is not None), default=None)
            except ApiError as refused:
                error = refused
            status = self._suspended(record, status)
        work = self._work(record)
        if decided is None and self._complete(work):
            reason, message = "CompletionsReached", "Reached expected number of succeeded pods"
            decided = self._condition("SuccessCriteriaMet", "True", reason, message)
        self._write(work, status, decided)
        if error is not None:
            raise error
        return again

    def _work(self, record: Record) -> _Work:
        pods = [pod for pod in self._ownership.controlled(record, "pods") if not podlist.finished(pod.raw)]
        active = [pod for pod in pods if not podlist.leaving(pod.raw)]
        return _Work(record, self._tally.of(uid_of(record.raw)), active, len(pods) - len(active))

    def _condition(self, kind: str, status: str, reason: str, message: str) -> Object:
        now = self._registry.now()
        told = {"type": kind, "status": status, "reason": reason, "message": message}
        return {**told, "lastProbeTime": now, "lastTransitionTime": now}

    # -- what decides

    def _complete(self, work: _Work) -> bool:
        completions = work.spec.get("completions")
        enough = work.succeeded > 0 if completions is None else work.succeeded >= completions
        return enough and not work.active and not work.spec.get("suspend")

    def _failed(self, work: _Work, status: Object) -> tuple[Object | None, float | None]:
        """Whether a Job has failed.

        Returns:
            The condition that says so, or None; and in how many seconds its deadline ends, or None.
        """
        limit = int(work.spec["backoffLimit"])
        if len(work.ended.failed) > limit or _restarted(work, limit):
            told = "True", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
            return self._condition("FailureTarget", *told), None
        deadline = work.spec.get("activeDeadlineSeconds")
        if deadline is None or work.spec.get("suspend") or "startTime" not in status:
            return None, None
        rest = deadline - self._since(status["startTime"])
        if rest > 0:
            return None, rest
        told = "True", "DeadlineExceeded", "Job was active longer than specified deadline"
        return self._condition("FailureTarget", *told), None

    def _since(self, stamp: str) -> float:
        now: datetime = self._registry.clock.now()
        return (now - parse(stamp)).total_seconds()

    def _expire(self, record: Record, status: Object) -> float | None:
        """Delete a finished Job whose `ttlSecondsAfterFinished` has passed; else in how many seconds it will have."""
        seconds = record.raw["spec"].get("ttlSecondsAfterFinished")
        if seconds is None or podlist.leaving(record.raw):
            return None
        ended = next(told for kind in _END.values() if (told := _true(status, kind)))
        rest = float(seconds) - self._since(ended["lastTransitionTime"])
        if rest > 0:
            return rest
        options = Options(uid=uid_of(record.raw), propagation="Foreground")
        self._deletion.delete(Call(core(PLURAL), record.namespace, record.name), record, options)
        return None

    # -- what is done

    def _end(self, work: _Work) -> None:
        """Delete the pods of a Job that has failed or has enough; they count as failed."""
        for pod in work.active:
            self._delete(work.owner, pod)

    def _manage(self, work: _Work) -> float | None:
        """Create missing pods, or delete surplus ones. Returns in how many seconds there is more to do, if at all.

        Raises:
            ApiError: a pod is refused.
        """
        surplus = len(work.active) - work.wanted
        if surplus > 0:
            for pod in podlist.surplus(work.active, surplus):
                work.ended.spared.add(uid_of(pod.raw))
                self._delete(work.owner, pod)
            return None
        if surplus == 0:
            return None
        if (pause := work.ended.until - self._clock.monotonic()) > 0:
            return pause
        count = min(-surplus, BURST)
        numbers: Sequence[int | None] = [None] * count
        if work.indexed:
            taken = {index for pod in work.active if (index := indexes.index_of(pod.raw)) is not None}
            numbers = indexes.missing(int(work.spec["completions"]), work.done | taken, count)
        for number in numbers:  # the first that is refused is the last that is tried
            self._create(work.owner, number)
        return 0.0 if -surplus > BURST else None

    def _create(self, owner: Record, index: int | None) -> None:
        body = podlist.from_template(owner.raw["spec"]["template"], owner)
        if index is not None:
            body = indexes.numbered(body, owner.name, index)
        try:
            made = self._registry.create(Call(core("pods"), owner.namespace, manager=_MANAGER), body)
        except ApiError as error:
            self._events.tell(owner, "Warning", "FailedCreate", f"Error creating: {error.message}")
            raise
        self._events.tell(owner, "Normal", "SuccessfulCreate", f"Created pod: {made.name}")

    def _delete(self, owner: Record, pod: Record) -> None:
        self._deletion.delete(Call(core("pods"), pod.namespace, pod.name), pod, Options())
        self._events.tell(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.name}")

    def _suspended(self, record: Record, status: Object) -> Object:
        """The status with the condition Suspended brought up to date."""
        suspend = bool(record.raw["spec"].get("suspend"))
        known = next((item for item in status.get("conditions") or () if item.get("type") == "Suspended"), None)
        if (known is None and not suspend) or (known is not None and known.get("status") == str(suspend)):
            return status
        word = "suspended" if suspend else "resumed"
        told = self._condition("Suspended", str(suspend), f"Job{word.capitalize()}", f"Job {word}")
        self._events.tell(record, "Normal", word.capitalize(), f"Job {word}")
        new = {
            **status,
            "conditions": with_condition(status.get("conditions"), told),
            "startTime": self._registry.now(),
        }
        return {key: value for key, value in new.items() if key != "startTime" or not suspend}

    # -- its status

    def _write(self, work: _Work, status: Object, decided: Object | None) -> None:
        ready = sum(podlist.ready_since(pod.raw) is not None for pod in work.active)
        new: Object = {
            **status,
            "active": len(work.active),
            "ready": ready,
            "terminating": work.terminating,
            "succeeded": work.succeeded,
            "failed": len(work.ended.failed),
            "uncountedTerminatedPods": {},
        }
        if work.indexed:
            new["completedIndexes"] = indexes.text_of(work.done)
        if decided is not None:
            new["conditions"] = with_condition(new.get("conditions"), decided)
            if not work.active and not work.terminating:
                new = self._finished(work.owner, new, decided)
        shown = ("ready", "terminating", "uncountedTerminatedPods")
        new = {key: value for key, value in new.items() if value or key in shown}
        if new != (work.owner.raw.get("status") or {}):
            self._store.write(core(PLURAL), {**work.owner.raw, "status": new})

    def _finished(self, owner: Record, status: Object, decided: Object) -> Object:
        kind = _END[decided["type"]]
        told = self._condition(kind, "True", decided["reason"], decided["message"])
        status = {**status, "conditions": with_condition(status["conditions"], told)}
        if kind == "Complete":
            self._events.tell(owner, "Normal", "Completed", "Job completed")
            return {**status, "completionTime": self._registry.now()}
        self._events.tell(owner, "Warning", decided["reason"], decided["message"])
        return status


def _restarted(work: _Work, limit: int) -> bool:
    """Whether containers were restarted too often, where pods restart them themselves (restartPolicy OnFailure)."""
    if work.spec["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    count = sum(
        int(item.get("restartCount") or 0)
        for pod in work.active
        for key in ("initContainerStatuses", "containerStatuses")
        for item in (pod.raw.get("status") or {}).get(key) or ()
    )
    return count > 0 if limit == 0 else count >= limit
