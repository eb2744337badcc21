"""What controllers ask of a pod: whether it counts, whether it is ready and for how long, and which one goes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from wasmlet.controlplane.controllers.workloads.ownership import controller_reference
from wasmlet.controlplane.objects.pod_rules import TERMINAL
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Record

_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def from_template(template: Object, owner: Record) -> Object:
    """A pod without a name, made of a template and controlled by its owner (`GetPodFromTemplate`)."""
    given = template.get("metadata") or {}
    metadata: Object = {key: given[key] for key in ("labels", "annotations", "finalizers") if key in given}
    metadata["generateName"] = f"{owner.name}-"
    metadata["ownerReferences"] = [controller_reference(owner)]
    return {"metadata": metadata, "spec": template["spec"]}


def finished(pod: Object) -> bool:
    """Whether all containers of a pod have ended for good."""
    return (pod.get("status") or {}).get("phase") in TERMINAL


def leaving(pod: Object) -> bool:
    """Whether a pod is being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def active(pod: Object) -> bool:
    """Whether a pod counts as a replica."""
    return not finished(pod) and not leaving(pod)


def ready_since(pod: Object) -> str | None:
    """Since when a pod is ready; None where it is not."""
    for item in (pod.get("status") or {}).get("conditions") or ():
        if item.get("type") == "Ready":
            return str(item.get("lastTransitionTime") or "") if item.get("status") == "True" else None
    return None


def seconds_until_available(pod: Object, min_ready: int, now: datetime) -> float | None:
    """For how long a pod has to stay ready until it is available; 0 where it is, None where it is not ready."""
    since = ready_since(pod)
    if since is None:
        return None
    if min_ready == 0:
        return 0.0
    try:
        waited = (now - datetime.fromisoformat(since)).total_seconds()
    except ValueError:  # it does not say since when
        return float(min_ready)
    return max(0.0, min_ready - waited)


def _cost(pod: Object) -> int:
    try:
        return int((pod["metadata"].get("annotations") or {}).get(_COST, "0"))
    except ValueError:
        return 0


def _restarts(pod: Object) -> int:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return max((int(item.get("restartCount") or 0) for item in statuses), default=0)


def surplus(pods: Iterable[Record], count: int) -> list[Record]:
    """The pods that are deleted first where there are too many (`ActivePodsWithRanks`).

    Those without a node go first, then those that have not started, are not ready, cost little by their annotation,
    share a node with many others, became ready last, restarted often, and were made last.
    """
    pods = list(pods)
    crowd = Counter(pod.node for pod in pods)

    def rank(pod: Record) -> Any:
        raw = pod.raw
        since = ready_since(raw)
        phase = _PHASES.get((raw.get("status") or {}).get("phase", "Pending"), 0)
        return bool(pod.node), phase, since is not None, _cost(raw), -crowd[pod.node]

    # Sorts are stable, so the last one counts most: the newest come first where all else is equal.
    ordered = sorted(pods, key=lambda pod: pod.raw["metadata"]["creationTimestamp"], reverse=True)
    ordered.sort(key=lambda pod: _restarts(pod.raw), reverse=True)
    ordered.sort(key=lambda pod: ready_since(pod.raw) or "", reverse=True)
    ordered.sort(key=rank)
    return ordered[:count]
