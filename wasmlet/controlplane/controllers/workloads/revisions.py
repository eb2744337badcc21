"""A Deployment's ReplicaSets as its revisions: finds the one of the present template, and builds a new one.

`kubectl rollout history` and `undo` read the annotations that are kept here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from wasmlet.controlplane.controllers.workloads import rollout
from wasmlet.controlplane.controllers.workloads.ownership import controller_reference
from wasmlet.controlplane.objects.admission import SUFFIX
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Record

REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
HASH = "pod-template-hash"
_HISTORY_LENGTH = 2000
_NAME_LENGTH = 253
_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    HISTORY,
    rollout.DESIRED,
    rollout.MOST,
}


def _plain(value: Any) -> Any:
    """A value without empty parts, so that a field that is missing equals one that is empty."""
    if isinstance(value, dict):
        return {key: plain for key, item in value.items() if (plain := _plain(item)) not in (None, {}, [])}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _template(obj: Object) -> Object:
    """The pod template of a Deployment or ReplicaSet, without the `pod-template-hash` label."""
    template: Object = _plain(obj["spec"]["template"])
    metadata = template.get("metadata") or {}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH}
    return {**template, "metadata": {**metadata, "labels": labels}}


def same_template(one: Object, other: Object) -> bool:
    """Whether two make the same pods."""
    return _template(one) == _template(other)


def eldest_first(replica_sets: Iterable[Record]) -> list[Record]:
    """In the order in which they were made."""
    return sorted(replica_sets, key=lambda record: (record.raw["metadata"]["creationTimestamp"], record.name))


def newest(deployment: Object, replica_sets: Iterable[Record]) -> Record | None:
    """The ReplicaSet of the Deployment's present template; the oldest where there are several."""
    return next((item for item in eldest_first(replica_sets) if same_template(item.raw, deployment)), None)


def revision(obj: Object) -> int:
    """The number of a revision; 0 where it has none."""
    text = (obj["metadata"].get("annotations") or {}).get(REVISION, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def template_hash(deployment: Object) -> str:
    """A short hash of a Deployment's template. After a collision of names, the next hash is another one."""
    collisions = (deployment.get("status") or {}).get("collisionCount") or 0
    return short_hash([_template(deployment), collisions])


def short_hash(value: object) -> str:
    """Ten letters for a value as JSON has it, fit for names."""
    digest = hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()
    return "".join(SUFFIX[byte % len(SUFFIX)] for byte in digest[:10])


def annotated(replica_set: Object, deployment: Object, number: int) -> Object:
    """The ReplicaSet with the annotations that its Deployment gives it and the number of its revision.

    One that is used again gets a new number, and keeps those that it had in its history.
    """
    known = replica_set["metadata"].get("annotations") or {}
    given = deployment["metadata"].get("annotations") or {}
    noted = {**known, **{key: value for key, value in given.items() if key not in _NOT_COPIED}}
    before = revision(replica_set)
    if before < number:
        noted[REVISION] = str(number)
        if REVISION in known:
            past = [*filter(None, known.get(HISTORY, "").split(",")), str(before)]
            while len(",".join(past)) > _HISTORY_LENGTH:
                past.pop(0)
            noted[HISTORY] = ",".join(past)
    if noted == known:
        return replica_set
    return {**replica_set, "metadata": {**replica_set["metadata"], "annotations": noted}}


def make(record: Record, others: Sequence[Record], number: int) -> Object:
    """Build a ReplicaSet for the present template of a Deployment, as large as it may be at once."""
    deployment = record.raw
    spec, hashed = deployment["spec"], template_hash(deployment)
    template = spec["template"]
    metadata = template.get("metadata") or {}
    labels = {**(metadata.get("labels") or {}), HASH: hashed}
    selector = spec["selector"]
    chosen = {**(selector.get("matchLabels") or {}), HASH: hashed}
    total = sum(rollout.replicas(other.raw) for other in others)
    body: Object = {
        "metadata": {
            "name": f"{record.name[: _NAME_LENGTH - 1 - len(hashed)]}-{hashed}",
            "labels": labels,
            "annotations": rollout.noted_sizes(deployment),
            "ownerReferences": [controller_reference(record)],
        },
        "spec": {
            "replicas": rollout.new_size(deployment, total, 0),
            "selector": {**selector, "matchLabels": chosen},
            "template": {**template, "metadata": {**metadata, "labels": labels}},
        },
    }
    if spec.get("minReadySeconds"):
        body["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    return annotated(body, deployment, number)
