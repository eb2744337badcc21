"""Converts a container's `resources` to bytes and thousandths of a CPU, for the shim and the engine."""

from __future__ import annotations

import math

from wasmlet.model.pod import Raw
from wasmlet.runtime.resizing import amounts


def memory(resources: Raw) -> int | None:
    """The most memory, in bytes; None for no limit."""
    limit = amounts(resources, "limits").get("memory")
    return (math.ceil(limit) or None) if limit is not None else None


def as_message(resources: Raw) -> dict[str, int | None]:
    """As `wasmlet.worker.wire` has `resources`. A limit of 0 is none, as for the kubelet."""
    cpu, request = (amounts(resources, kind).get("cpu") for kind in ("limits", "requests"))
    return {
        "memory": memory(resources),
        "cpu": math.ceil(cpu * 1000) or None if cpu is not None else None,
        "cpu_request": math.ceil(request * 1000) if request is not None else None,
    }
