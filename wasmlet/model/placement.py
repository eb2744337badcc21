"""Whether a pod may be on a node: what it asks for, which nodes it selects, which taints it tolerates.

Pure functions on raw objects, for the admission of a node (`wasmlet.node.admission`) and for whoever schedules
(`wasmlet.controlplane.scheduler`): both have to come to one answer.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from decimal import Decimal

import attrs

from wasmlet.model.pod import Raw
from wasmlet.model.quantity import Quantity

ZERO = Decimal(0)

Amounts = dict[str, Decimal]
"""Resource name to amount: cores, bytes, pods."""


@functools.lru_cache(maxsize=4096)
def _amount(text: str) -> Decimal:
    try:
        return Quantity.parse(text).value
    except (ValueError, ArithmeticError):
        return ZERO


def amounts(quantities: object) -> Amounts:
    """A map of quantities, read; what cannot be read counts as nothing."""
    if not isinstance(quantities, Mapping):
        return {}
    return {name: _amount(str(text)) for name, text in quantities.items()}


def add(into: Amounts, more: Mapping[str, Decimal]) -> None:
    """Add to the amounts in place."""
    for name, amount in more.items():
        into[name] = into.get(name, ZERO) + amount


def demand(spec: Raw) -> Amounts:
    """What a pod asks of a node, itself counted under `pods`.

    Of each resource, the sum over its containers, or the largest step of its initialisation if that is larger. Sidecars
    (KEP-753) run beside both, so they are added to both. Requests of the pod as a whole (KEP-2837) take the place of
    these sums. The overhead of its RuntimeClass (KEP-688) is added.
    """
    total: Amounts = {}
    for item in spec.get("containers") or ():
        add(total, _requests(item))
    peak: Amounts = {}
    sidecars: Amounts = {}
    for item in spec.get("initContainers") or ():
        if item.get("restartPolicy") == "Always":
            add(sidecars, _requests(item))
            add(total, _requests(item))
            step = dict(sidecars)
        else:
            step = _requests(item)
            add(step, sidecars)
        for name, amount in step.items():
            peak[name] = max(peak.get(name, ZERO), amount)
    for name, amount in peak.items():
        total[name] = max(total.get(name, ZERO), amount)
    total |= _requests(spec)
    add(total, amounts(spec.get("overhead")))
    total["pods"] = Decimal(1)
    return total


def _requests(holder: Raw) -> Amounts:
    return amounts((holder.get("resources") or {}).get("requests"))


def tolerates(toleration: Raw, taint: Raw) -> bool:
    """Whether a toleration covers a taint."""
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("key") not in (None, "", taint.get("key")):
        return False
    if (toleration.get("operator") or "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


@attrs.frozen
class Requirement:
    """One condition on a label; `operator` is `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`.

    A missing label satisfies `NotIn`, as in the API. The terms of node affinity consist of these, too.
    """

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        if value is None or len(self.values) != 1:
            return False
        try:
            found, limit = int(value), int(next(iter(self.values)))
        except ValueError:
            return False
        return found > limit if self.operator == "Gt" else found < limit


def selects(spec: Raw, node: Raw) -> bool:
    """Whether the pod's nodeSelector and required node affinity allow this node."""
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(_term(term, node) for term in required.get("nodeSelectorTerms") or ())


def _term(term: Raw, node: Raw) -> bool:
    labels = node["metadata"].get("labels") or {}
    wanted = term.get("matchExpressions") or ()
    fields = term.get("matchFields") or ()
    if not wanted and not fields:
        return False
    named = {"metadata.name": node["metadata"]["name"]}
    return all(_requirement(item).matches(labels) for item in wanted) and all(
        _requirement(item).matches(named) for item in fields
    )


def _requirement(item: Raw) -> Requirement:
    return Requirement(item.get("key", ""), item.get("operator", ""), frozenset(item.get("values") or ()))
