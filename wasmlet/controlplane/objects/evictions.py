"""The eviction of a pod: a delete that the pod's disruption budget may refuse.

The rules are those of kubernetes/pkg/registry/core/pod/storage/eviction.go.
"""

from __future__ import annotations

from typing import Any

import attrs

from wasmlet.controlplane.objects import budgets
from wasmlet.controlplane.objects.conditions import with_condition
from wasmlet.controlplane.objects.deletion import Deletion, Options
from wasmlet.controlplane.objects.pod_rules import TERMINAL
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.status import ApiError, Object, bad_request, forbidden
from wasmlet.controlplane.storage.store import Record

MOST_DISRUPTED = 2000
"""How many evictions a budget may have allowed whose pods its controller has not seen go yet."""
_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
_SOON = 10
"""The seconds in Retry-After where the controller has not seen the budget's last change."""


class Evictions:
    """Evicts pods."""

    def __init__(self, registry: Registry, deletion: Deletion) -> None:
        self._registry = registry
        self._store = registry.store
        self._deletion = deletion

    def evict(self, call: Call, pod: Record, body: Object) -> None:
        """Delete a pod if its budget allows it.

        Args:
            call: the request; its name is the pod's.
            body: an Eviction.

        Raises:
            ApiError: 429, the budget does not allow it now; 500, there are several budgets; 400, 403 and 409, as for
                any delete.
        """
        if (body.get("metadata") or {}).get("name") != pod.name:
            raise bad_request("name in URL does not match name in Eviction object")
        given = body.get("deleteOptions")
        options = Options.parse(given, None)
        dry_run = call.dry_run or bool(isinstance(given, dict) and given.get("dryRun"))
        call = Call(core("pods"), pod.namespace, pod.name, user=call.user, dry_run=dry_run)
        self._deletion.check(call, pod, options)
        raw = pod.raw
        phase = (raw.get("status") or {}).get("phase")
        if phase not in (*TERMINAL, "Pending") and "deletionTimestamp" not in raw["metadata"]:
            self._ask(pod, dry_run=dry_run)
        if not dry_run:
            pod, options = self._marked(pod, options)
        self._deletion.delete(call, pod, options)

    def _marked(self, pod: Record, options: Options) -> tuple[Record, Options]:
        """Write to the pod why it is deleted. Returns the pod, and options that accept its new version."""
        told = {
            "type": "DisruptionTarget",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": self._registry.now(),
            "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
            "observedGeneration": pod.raw["metadata"].get("generation", 1),
        }
        status = pod.raw.get("status") or {}
        new = {**status, "conditions": with_condition(status.get("conditions"), told)}
        marked = self._store.write(core("pods"), {**pod.raw, "status": new})
        return marked, attrs.evolve(options, version=None)

    def _ask(self, pod: Record, *, dry_run: bool) -> None:
        """Ask the budget of a pod, if it has one, to allow the eviction, and count it there.

        Raises:
            ApiError: 429, 403 or 500.
        """
        found = budgets.of_pod(self._store, pod)
        if len(found) > 1:
            why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            raise ApiError(500, "", why)
        for budget in found:
            if not _spared(budget.raw, pod.raw):
                status = _counted_down(budget, pod.name, self._registry.now())
                if not dry_run:
                    self._store.write(core(budgets.PLURAL), {**budget.raw, "status": status})


def _spared(budget: Object, pod: Object) -> bool:
    """Whether a pod is not ready, and may therefore be evicted without being counted."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    if any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions):
        return False
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    wanted = status.get("desiredHealthy", 0)
    return bool(status.get("currentHealthy", 0) >= wanted > 0)


def _counted_down(budget: Record, pod: str, now: str) -> Object:
    """The status of a budget after one more eviction.

    Raises:
        ApiError: 429, the budget allows no eviction; 403, too many evicted pods have not been seen to go.
    """
    status: dict[str, Any] = budget.raw.get("status") or {}
    if status.get("observedGeneration", 0) < budget.raw["metadata"]["generation"]:
        raise _refusal(f"The disruption budget {budget.name} is still being processed by the server.", _SOON)
    disrupted = status.get("disruptedPods") or {}
    if len(disrupted) > MOST_DISRUPTED:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise forbidden(core(budgets.PLURAL), budget.name, why)
    allowed = status.get("disruptionsAllowed", 0)
    if allowed <= 0:
        raise _refusal(_why(budget.name, status))
    status = {**status, "disruptionsAllowed": allowed - 1, "disruptedPods": {**disrupted, pod: now}}
    return budgets.with_condition(status, now) if allowed == 1 else status


def _why(name: str, status: Object) -> str:
    """Why a budget allows no eviction, in the words of the API server."""
    told = budgets.condition(status)
    failed = told.get("status") == "False" and told.get("message")
    if failed and told.get("reason") == budgets.SYNC_FAILED:
        cannot = f"The disruption budget {name} does not allow evicting pods currently because it failed sync"
        return f"{cannot}: {told['message']}"
    has, needs = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
    if has <= needs:
        return f"The disruption budget {name} needs {needs} healthy pods and has {has} currently"
    if failed:
        return (
            f"The disruption budget {name} does not allow evicting pods currently ({told['reason']}): {told['message']}"
        )
    return f"The disruption budget {name} does not allow evicting pods currently"


def _refusal(why: str, seconds: int | None = None) -> ApiError:
    causes = [{"reason": "DisruptionBudget", "message": why}]
    return ApiError(429, "TooManyRequests", _REFUSED, details={"causes": causes}, retry_after=seconds)
