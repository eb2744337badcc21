"""The identity of a StatefulSet's pods: names, labels and volumes, which all follow from a number, the ordinal.

The rules are those of kubernetes/pkg/controller/statefulset. Nothing here reads or writes objects of the store.
"""

from __future__ import annotations

import re

from wasmlet.controlplane.controllers.workloads import pods as podlist
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Record

POD_NAME = "statefulset.kubernetes.io/pod-name"
INDEX = "apps.kubernetes.io/pod-index"
REVISION = "controller-revision-hash"
_NAME = re.compile(r"(.*)-([0-9]{1,9})")


def ordinal(owner: str, pod: str) -> int | None:
    """The number of a pod of the StatefulSet `owner`; None where its name is not that of one."""
    match = _NAME.fullmatch(pod)
    return int(match[2]) if match and match[1] == owner else None


def start(owner: Object) -> int:
    """The first ordinal."""
    return int((owner["spec"].get("ordinals") or {}).get("start") or 0)


def ordinals(owner: Object) -> range:
    """The ordinals that the pods of a StatefulSet are to have."""
    return range(start(owner), start(owner) + int(owner["spec"].get("replicas") or 0))


def revision_of(pod: Object) -> str:
    """The name of the ControllerRevision that a pod was made of."""
    return str((pod["metadata"].get("labels") or {}).get(REVISION, ""))


def claim_name(owner: str, template: Object, number: int) -> str:
    """The name of the claim of a pod for one of `volumeClaimTemplates`."""
    return f"{template['metadata']['name']}-{owner}-{number}"


def claims(owner: Record, number: int) -> list[Object]:
    """The claims that a pod has to have."""
    chosen = owner.raw["spec"]["selector"].get("matchLabels") or {}
    out = []
    for template in owner.raw["spec"].get("volumeClaimTemplates") or ():
        given = template["metadata"]
        metadata: Object = {key: given[key] for key in ("annotations", "finalizers") if key in given}
        metadata |= {
            "name": claim_name(owner.name, template, number),
            "labels": {**(given.get("labels") or {}), **chosen},
        }
        out.append({"metadata": metadata, "spec": template["spec"]})
    return out


def make(owner: Record, template: Object, revision: str, number: int) -> Object:
    """The pod of an ordinal, of the template of a revision."""
    pod = podlist.from_template(template, owner)
    name = f"{owner.name}-{number}"
    metadata = pod["metadata"]
    metadata["name"] = name
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels(name, number), REVISION: revision}
    pod["spec"] = {
        **pod["spec"],
        "hostname": name,
        "subdomain": owner.raw["spec"].get("serviceName") or "",
    }
    if owner.raw["spec"].get("volumeClaimTemplates"):
        pod["spec"]["volumes"] = _volumes(owner, pod["spec"], number)
    return pod


def labels(name: str, number: int) -> dict[str, str]:
    """The labels by which a pod is known."""
    return {POD_NAME: name, INDEX: str(number)}


def _volumes(owner: Record, spec: Object, number: int) -> list[Object]:
    templates = owner.raw["spec"].get("volumeClaimTemplates") or ()
    made = {item["metadata"]["name"]: {"claimName": claim_name(owner.name, item, number)} for item in templates}
    kept = [item for item in spec.get("volumes") or () if item["name"] not in made]
    return [*({"name": name, "persistentVolumeClaim": claim} for name, claim in made.items()), *kept]
