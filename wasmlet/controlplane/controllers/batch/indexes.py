"""The completion indexes of an Indexed Job's pods: reading them, finding free ones, and giving a pod its own.

The rules are those of kubernetes/pkg/controller/job/indexed_job_utils.go.
"""

from __future__ import annotations

from collections.abc import Iterable

from wasmlet.controlplane.storage.status import Object

INDEX = "batch.kubernetes.io/job-completion-index"
_VARIABLE = "JOB_COMPLETION_INDEX"


def index_of(pod: Object) -> int | None:
    """The index of a pod; None where it has none."""
    text = (pod["metadata"].get("annotations") or {}).get(INDEX, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def missing(completions: int, taken: Iterable[int], count: int) -> list[int]:
    """The lowest indexes that are not taken, at most `count` of them."""
    out: list[int] = []
    have = set(taken)
    for index in range(completions):
        if len(out) >= count:
            break
        if index not in have:
            out.append(index)
    return out


def text_of(indexes: Iterable[int]) -> str:
    """Indexes as text in the form of `status.completedIndexes`: 0-2,5."""
    spans: list[list[int]] = []
    for index in sorted(indexes):
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ",".join(_span(first, last) for first, last in spans)


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}" if last > first + 1 else f"{first},{last}"


def numbered(pod: Object, job: str, index: int) -> Object:
    """A new pod with its index in its name, host name, labels, annotations and an environment variable."""
    metadata, spec = pod["metadata"], pod["spec"]
    known = {INDEX: str(index)}
    field = {"name": _VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}}
    with_variable = {
        key: [{**item, "env": [*(item.get("env") or ()), field]} for item in spec[key]]
        for key in ("initContainers", "containers")
        if spec.get(key)
    }
    return {
        "metadata": {
            **metadata,
            "generateName": f"{job}-{index}-",
            "labels": {**(metadata.get("labels") or {}), **known},
            "annotations": {**(metadata.get("annotations") or {}), **known},
        },
        "spec": {**spec, **with_variable, "hostname": f"{job}-{index}"},
    }
