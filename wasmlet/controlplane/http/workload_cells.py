"""The cells that `kubectl get` shows of kinds that run pods, and of what belongs to them."""

from __future__ import annotations

from datetime import datetime

from wasmlet.controlplane.http.cells import NONE, Cells, age
from wasmlet.controlplane.storage.status import Object


def _templated(obj: Object, now: datetime) -> Cells:
    """The cells that all kinds with a template of pods end with: age, containers, images, selector."""
    spec = obj.get("spec") or {}
    containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or ()
    chosen = spec.get("selector") or {}
    labels = [f"{key}={value}" for key, value in sorted((chosen.get("matchLabels") or {}).items())]
    for item in chosen.get("matchExpressions") or ():
        values = f" ({','.join(sorted(item['values']))})" if item.get("values") else ""
        operator = str(item.get("operator", "")).lower()
        labels.append(f"{item.get('key')} {operator}{values}" if values else f"{item.get('key')} {operator}")
    return [
        age(obj["metadata"].get("creationTimestamp"), now),
        ",".join(item.get("name", "") for item in containers),
        ",".join(item.get("image", "") for item in containers),
        ",".join(labels),
    ]


def deployment(deployment: Object, now: datetime) -> Cells:
    spec, status = deployment.get("spec") or {}, deployment.get("status") or {}
    return [
        deployment["metadata"]["name"],
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        *_templated(deployment, now),
    ]


def replica_set(replica_set: Object, now: datetime) -> Cells:
    spec, status = replica_set.get("spec") or {}, replica_set.get("status") or {}
    return [
        replica_set["metadata"]["name"],
        spec.get("replicas", 0),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        *_templated(replica_set, now),
    ]


def stateful_set(set_: Object, now: datetime) -> Cells:
    spec, status = set_.get("spec") or {}, set_.get("status") or {}
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    return [set_["metadata"]["name"], ready, *_templated(set_, now)[:-1]]


def job(job_: Object, now: datetime) -> Cells:
    spec, status = job_.get("spec") or {}, job_.get("status") or {}
    true = {item.get("type") for item in status.get("conditions") or () if item.get("status") == "True"}
    words = [word for word in ("Complete", "Failed") if word in true]
    words += ["Terminating"] if "deletionTimestamp" in job_["metadata"] else []
    words += [word for word in ("Suspended", "FailureTarget", "SuccessCriteriaMet") if word in true]
    succeeded, parallelism = status.get("succeeded", 0), spec.get("parallelism") or 0
    wanted = spec.get("completions")
    if wanted is None:
        wanted = f"1 of {parallelism}" if parallelism > 1 else 1
    took = ""
    if status.get("startTime"):
        end = datetime.fromisoformat(status["completionTime"]) if status.get("completionTime") else now
        took = age(status["startTime"], end)
    return [job_["metadata"]["name"], [*words, "Running"][0], f"{succeeded}/{wanted}", took, *_templated(job_, now)]


def controller_revision(revision: Object, now: datetime) -> Cells:
    meta = revision["metadata"]
    owner = next((item for item in meta.get("ownerReferences") or () if item.get("controller")), None)
    name = NONE
    if owner is not None:
        group = str(owner.get("apiVersion", "")).rpartition("/")[0]
        name = f"{str(owner.get('kind', '')).lower()}{'.' if group else ''}{group}/{owner.get('name')}"
    return [meta["name"], name, revision.get("revision", 0), age(meta.get("creationTimestamp"), now)]


def budget(budget_: Object, now: datetime) -> Cells:
    spec, status, meta = budget_.get("spec") or {}, budget_.get("status") or {}, budget_["metadata"]
    least, most = (str(spec[key]) if spec.get(key) is not None else "N/A" for key in ("minAvailable", "maxUnavailable"))
    return [meta["name"], least, most, status.get("disruptionsAllowed", 0), age(meta.get("creationTimestamp"), now)]
