"""The selector and labels that the API server gives a new Job (`generateSelector`), and validation (`ValidateJob`)."""

from __future__ import annotations

from wasmlet.controlplane.objects.workload_rules import count, pod_template, selector
from wasmlet.controlplane.storage.status import Cause, Object

PLURAL = "jobs"
NAME, UID = "batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid"
_LEGACY = {NAME: "job-name", UID: "controller-uid"}
INDEXED = "Indexed"
_MODES = ("NonIndexed", INDEXED)
_COUNTS = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")
_FIXED = ("selector", "template", "completionMode")
_MISSING = ("podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "maxFailedIndexes")


def select(obj: Object) -> None:
    """Give a new Job a selector that matches only its own pods, and give its pod template the labels for it.

    A Job without labels gets those of its template.
    """
    spec = obj["spec"]
    template = spec.get("template")
    metadata = template.get("metadata") or {} if isinstance(template, dict) else None
    if not isinstance(template, dict) or not isinstance(metadata, dict):
        return
    template["metadata"] = metadata
    labels, chosen = metadata.get("labels") or {}, spec.get("selector") or {}
    if not spec.get("manualSelector") and isinstance(labels, dict) and isinstance(chosen, dict):
        metadata["labels"], spec["selector"] = labels, chosen
        for key, value in ((NAME, obj["metadata"].get("name", "")), (UID, obj["metadata"]["uid"])):
            labels.setdefault(_LEGACY[key], value)
            labels.setdefault(key, value)
        wanted = chosen["matchLabels"] = chosen.get("matchLabels") or {}
        if isinstance(wanted, dict):
            wanted.setdefault(UID, obj["metadata"]["uid"])
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = labels


def check(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a Job, after defaults; `old` is what it replaces."""
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return [Cause.required("spec")]
    out = [cause for field in _COUNTS if spec.get(field) is not None for cause in count(spec[field], f"spec.{field}")]
    if (mode := spec.get("completionMode")) not in _MODES:
        out.append(Cause.unsupported("spec.completionMode", mode, _MODES))
    elif mode == INDEXED and spec.get("completions") is None:
        out.append(Cause.required("spec.completions", "when completion mode is Indexed"))
    out += [
        Cause.forbidden(f"spec.{field}", "this control plane does not have it")
        for field in _MISSING
        if spec.get(field) is not None
    ]
    out += selector(spec, None)
    out += pod_template(spec)
    template = spec.get("template")
    pod = template.get("spec") if isinstance(template, dict) else None
    if isinstance(pod, dict) and pod.get("restartPolicy") == "Always":
        out.append(Cause.required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"'))
    if old is None:
        return out
    before = old["spec"]
    fixed = (*_FIXED, *(() if mode == INDEXED else ("completions",)))
    changed = [field for field in fixed if spec.get(field) != before.get(field)]
    return out + [Cause.invalid(f"spec.{field}", spec.get(field), "field is immutable") for field in changed]
