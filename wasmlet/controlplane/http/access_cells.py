"""The cells that `kubectl get` shows of roles and of their bindings."""

from __future__ import annotations

from datetime import datetime

from wasmlet.controlplane.http.cells import Cells, age
from wasmlet.controlplane.storage.status import Object


def role(role_: Object, now: datetime) -> Cells:
    meta = role_["metadata"]
    return [meta["name"], meta.get("creationTimestamp", "")]


def binding(binding_: Object, now: datetime) -> Cells:
    meta, to = binding_["metadata"], binding_.get("roleRef") or {}
    names: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in binding_.get("subjects") or ():
        space = f"{subject['namespace']}/" if subject.get("namespace") else ""
        names.get(str(subject.get("kind")), []).append(f"{space}{subject.get('name')}")
    return [
        meta["name"],
        f"{to.get('kind')}/{to.get('name')}",
        age(meta.get("creationTimestamp"), now),
        *(", ".join(found) for found in names.values()),
    ]
