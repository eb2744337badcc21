"""The status of a Deployment: its counts, and the conditions by which `kubectl rollout status` tells how far it is.

The rules are those of kubernetes/pkg/controller/deployment/progress.go and sync.go. Times are texts as metav1.Time has
them, in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs

from wasmlet.controlplane.controllers.workloads import rollout
from wasmlet.controlplane.objects.registry import rfc3339
from wasmlet.controlplane.storage.status import Object

AVAILABLE, PROGRESSING, FAILURE = "Available", "Progressing", "ReplicaFailure"
DONE, TIMED_OUT, PAUSED = "NewReplicaSetAvailable", "ProgressDeadlineExceeded", "DeploymentPaused"
_NO_DEADLINE = 2**31 - 1


def condition(status: Object, kind: str) -> Object | None:
    """The condition of that type."""
    return next((item for item in status.get("conditions") or () if item.get("type") == kind), None)


def without(status: Object, kind: str) -> Object:
    """The status without the condition of that type."""
    return {**status, "conditions": [item for item in status.get("conditions") or () if item.get("type") != kind]}


def deadline(deployment: Object) -> int | None:
    """Within how many seconds there has to be progress; None where that is not asked for."""
    seconds = deployment["spec"].get("progressDeadlineSeconds")
    return None if seconds in (None, _NO_DEADLINE) else int(seconds)


def complete(deployment: Object, status: Object) -> bool:
    """Whether all pods are those of the present template, and available."""
    counts = (status.get(key, 0) for key in ("updatedReplicas", "replicas", "availableReplicas"))
    observed = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    return observed and set(counts) == {rollout.replicas(deployment)}


def _advanced(before: Object, now: Object) -> bool:
    """Whether there is progress from one status to the next."""

    def old(status: Object) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    grown = any(
        now.get(key, 0) > before.get(key, 0) for key in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )
    return grown or old(now) < old(before)


@attrs.frozen
class Progress:
    """Works out statuses at one moment.

    Attributes:
        deployment: the object as stored.
        now: the time, in UTC.
    """

    deployment: Object
    now: datetime

    def with_condition(self, status: Object, kind: str, value: str, reason: str, message: str) -> Object:
        """The status with a condition; nothing changes where one of that status and reason is there."""
        known = condition(status, kind)
        if known is not None and (known.get("status"), known.get("reason")) == (value, reason):
            return status
        return self._with(status, kind, value, reason, message)

    def _with(self, status: Object, kind: str, value: str, reason: str, message: str) -> Object:
        known, stamp = condition(status, kind), rfc3339(self.now)
        same = known is not None and known.get("status") == value
        made = {
            "type": kind,
            "status": value,
            "lastUpdateTime": stamp,
            "lastTransitionTime": known.get("lastTransitionTime", stamp) if same and known else stamp,
            "reason": reason,
            "message": message,
        }
        status = without(status, kind)
        return {**status, "conditions": [*status["conditions"], made]}

    def counted(self, new: Object | None, replica_sets: Sequence[Object]) -> Object:
        """The status with the counts of all ReplicaSets and whether enough pods are available (`calculateStatus`)."""
        before = self.deployment.get("status") or {}

        def total(key: str) -> int:
            return sum(int((item.get("status") or {}).get(key) or 0) for item in replica_sets)

        available = total("availableReplicas")
        counts = {
            "replicas": total("replicas"),
            "updatedReplicas": int(((new or {}).get("status") or {}).get("replicas") or 0),
            "readyReplicas": total("readyReplicas"),
            "availableReplicas": available,
            "unavailableReplicas": max(0, sum(rollout.replicas(item) for item in replica_sets) - available),
        }
        status = {key: value for key, value in before.items() if key not in counts}
        status |= {key: value for key, value in counts.items() if value}
        status["observedGeneration"] = self.deployment["metadata"]["generation"]
        least = rollout.replicas(self.deployment) - rollout.limits(self.deployment)[1]
        if available >= least:
            said = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        else:
            said = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        return self.with_condition(status, AVAILABLE, *said)

    def rolled(self, new: Object | None, replica_sets: Sequence[Object]) -> Object:
        """The status during a rollout: what `counted` says, how it goes on, and what failed (`syncRolloutStatus`)."""
        status = self.counted(new, replica_sets)
        before = self.deployment.get("status") or {}
        current = condition(before, PROGRESSING)
        settled = current is not None and current.get("reason") == DONE
        if deadline(self.deployment) is None:
            status = without(status, PROGRESSING)
        elif not (settled and status.get("replicas", 0) == status.get("updatedReplicas", 0)):
            status = self._progress(new, before, status)
        failed = next((found for item in (*filter(None, (new,)), *replica_sets) if (found := _failure(item))), None)
        if failed is None:
            return without(status, FAILURE)
        said = (str(failed.get(key, "")) for key in ("status", "reason", "message"))
        return self.with_condition(status, FAILURE, *said)

    def _progress(self, new: Object | None, before: Object, status: Object) -> Object:
        name = self.deployment["metadata"]["name"]
        what = f'ReplicaSet "{new["metadata"]["name"]}"' if new is not None else f'Deployment "{name}"'
        if complete(self.deployment, status):
            return self.with_condition(status, PROGRESSING, "True", DONE, f"{what} has successfully progressed.")
        if _advanced(before, status):
            return self._with(status, PROGRESSING, "True", "ReplicaSetUpdated", f"{what} is progressing.")
        if self._timed_out(status):
            return self.with_condition(status, PROGRESSING, "False", TIMED_OUT, f"{what} has timed out progressing.")
        return status

    def _timed_out(self, status: Object) -> bool:
        current = condition(status, PROGRESSING)
        if current is None or current.get("reason") == DONE:
            return False
        return current.get("reason") == TIMED_OUT or self._left(current) < 0

    def _left(self, current: Object) -> float:
        """How many seconds are left until there has to be progress."""
        since = datetime.fromisoformat(str(current["lastUpdateTime"]))
        return (since + timedelta(seconds=deadline(self.deployment) or 0) - self.now).total_seconds()

    def look_again(self, status: Object) -> float | None:
        """In how many seconds it has to be looked at whether there was progress in time (`requeueStuckDeployment`)."""
        current = condition(status, PROGRESSING)
        if deadline(self.deployment) is None or current is None:
            return None
        if complete(self.deployment, status) or current.get("reason") in (TIMED_OUT, DONE, PAUSED):
            return None
        return max(0.0, self._left(current)) + 1

    def paused(self) -> Object:
        """The status with a condition that says whether the rollout is paused, or resumed (`checkPausedConditions`)."""
        status = self.deployment.get("status") or {}
        current = condition(status, PROGRESSING) or {}
        paused = bool(self.deployment["spec"].get("paused"))
        if deadline(self.deployment) is None or current.get("reason") == TIMED_OUT:
            return status
        if paused == (current.get("reason") == PAUSED):
            return status
        if paused:
            return self.with_condition(status, PROGRESSING, "Unknown", PAUSED, "Deployment is paused")
        return self.with_condition(status, PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed")


def _failure(replica_set: Object) -> Object | None:
    return condition(replica_set.get("status") or {}, FAILURE)
