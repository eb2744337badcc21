"""A node writes its part of a pod's status and leaves the conditions of others alone."""

from __future__ import annotations

from typing import Any

from tests.conformance.harness import Kube
from tests.conformance.reading import condition
from wasmlet.kube.client import STRATEGIC_PATCH


async def test_conditions_of_others_stay(kube: Kube) -> None:
    await kube.create("await", "/go/on", "now", **kube.gate())
    await kube.ready()
    other: list[dict[str, Any]] = [
        {"type": "example.com/backed-up", "status": "True", "reason": "Saved", "message": "all of it"}
    ]
    await kube.patch({"status": {"conditions": other}}, "p/status", how=STRATEGIC_PATCH)
    await kube.open_gate()
    pod = await kube.phase("Succeeded")
    kept = condition(pod, "example.com/backed-up")
    assert {key: kept[key] for key in other[0]} == other[0]
    kinds = [c["type"] for c in pod["status"]["conditions"]]
    assert len(kinds) == len(set(kinds))


async def test_an_unchanged_status_is_not_written(kube: Kube) -> None:
    await kube.create("sleep", "1000")
    await kube.ready()
    await kube.patch({"metadata": {"labels": {"a": "b"}}})
    before = await kube.get()
    await kube.create("print", "x", name="q")
    await kube.phase("Succeeded", "q")
    assert (await kube.get())["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
