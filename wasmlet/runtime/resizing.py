"""The resources of containers, and in-place resize (KEP-1287), which decides whether changed `resources` of a running
pod can be applied.

A pod is resized as a whole or not at all. Requests and cpu limits can be changed while a guest runs. So can a memory
limit that the control group enforces (`pods.resizer`). A memory limit that only the engine enforces is fixed when the
guest begins: changing it requires `resizePolicy: RestartContainer` for memory; without that, the resize is infeasible.
These functions are pure; `pods.pod` calls them at each change and keeps the results.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal

from wasmlet.model.pod import Container, Raw
from wasmlet.model.quantity import Quantity
from wasmlet.model.status import Condition

RESOURCES = ("cpu", "memory")
Amounts = Mapping[str, Decimal]


def amounts(resources: Raw, kind: str) -> Amounts:
    """cpu (cores) and memory (bytes) of `requests` or `limits`, as far as they are there."""
    found = resources.get(kind) or {}
    return {name: Quantity.parse(found[name]).value for name in RESOURCES if name in found}


def memory_limit(resources: Raw) -> int | None:
    """The most memory, in bytes; None for no limit."""
    limit = amounts(resources, "limits").get("memory")
    return (math.ceil(limit) or None) if limit is not None else None


def as_message(resources: Raw) -> dict[str, int | None]:
    """As `wasmlet.worker.wire` has `resources`. A limit of 0 is none, as for the kubelet."""
    if not resources:
        return dict.fromkeys(("memory", "cpu", "cpu_request"))
    cpu, request = (amounts(resources, kind).get("cpu") for kind in ("limits", "requests"))
    return {
        "memory": memory_limit(resources),
        "cpu": math.ceil(cpu * 1000) or None if cpu is not None else None,
        "cpu_request": math.ceil(request * 1000) if request is not None else None,
    }


def changed(before: Raw, after: Raw) -> frozenset[str]:
    """The resources of which the request or the limit is another one."""
    if before == after:  # mostly so
        return frozenset()
    return frozenset(
        name
        for name in RESOURCES
        for kind in ("requests", "limits")
        if amounts(before, kind).get(name) != amounts(after, kind).get(name)
    )


def needs_restart(container: Container, before: Raw, after: Raw) -> bool:
    """Whether the container asks to be restarted for this change."""
    policies = {p.get("resourceName"): p.get("restartPolicy") for p in container.raw.get("resizePolicy") or ()}
    return any(policies.get(name) == "RestartContainer" for name in changed(before, after))


def added(some: Iterable[Amounts]) -> Amounts:
    """The sum of these amounts."""
    each = list(some)
    return {name: sum((one.get(name, Decimal(0)) for one in each), Decimal(0)) for name in RESOURCES}


def total(resources: Iterable[Raw]) -> Amounts:
    """The sum of the requests."""
    result = dict.fromkeys(RESOURCES, Decimal(0))
    for one in resources:
        for name, value in amounts(one, "requests").items():
            result[name] += value
    return result


def verdict(
    changes: Iterable[tuple[Container, Raw]],
    asked: Amounts,
    used: Amounts,
    capacity: Amounts,
    live: Collection[str] = (),
) -> Condition | None:
    """Why the pod cannot be resized, as its condition PodResizePending; None where it can.

    Args:
        changes: containers that run and what they have been given.
        asked: the sum of the pod's requests after the change.
        used: the sum of the requests of all other pods.
        capacity: the node's.
        live: names of containers whose limit of memory can be changed while they run.
    """
    for container, given in changes:
        limits = amounts(given, "limits").get("memory"), amounts(container.resources, "limits").get("memory")
        fixed = container.name not in live and not needs_restart(container, given, container.resources)
        if limits[0] != limits[1] and fixed:
            return _pending(
                "Infeasible",
                f"{container.field}.resources.limits.memory: the memory of a running guest cannot be changed; expected "
                "a resizePolicy with restartPolicy RestartContainer for memory",
            )
    for name in RESOURCES:
        if asked[name] > capacity[name]:
            words = f"{name}, requested: {_number(name, asked)}, total: {_number(name, capacity)}"
            return _pending("Infeasible", f"Node didn't have enough capacity: {words}")
    for name in RESOURCES:
        if asked[name] + used[name] > capacity[name]:
            words = f"{name}, requested: {_number(name, asked)}, used: {_number(name, used)}"
            return _pending(
                "Deferred", f"Node didn't have enough resource: {words}, capacity: {_number(name, capacity)}"
            )
    return None


def _pending(reason: str, message: str) -> Condition:
    return Condition("PodResizePending", "True", reason, message)


def _number(name: str, of: Amounts) -> int:
    """As the kubelet counts: millicores, bytes."""
    return int(of[name] * 1000) if name == "cpu" else int(of[name])
