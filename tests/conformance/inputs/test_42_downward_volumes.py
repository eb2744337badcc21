"""Volumes that tell a pod about itself, and follow when its labels and annotations change."""

from __future__ import annotations

from tests.conformance.harness import Kube


async def test_files_and_their_updates(kube: Kube) -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"}},
    ]
    script = (
        *("cat", "/v/name", "print", "", "cat", "/v/cpu", "print", "", "cat", "/v/labels", "print", ""),
        *("await", "/v/labels", 'app="two"', "await", "/v/annotations", 'note="new"', "print", "seen"),
    )
    await kube.create(
        *script,
        metadata={"labels": {"app": "one"}, "annotations": {"note": "old"}},
        resources={"limits": {"cpu": "250m"}},
        volumeMounts=[{"name": "v", "mountPath": "/v"}],
        spec={"volumes": [{"name": "v", "downwardAPI": {"items": items}}]},
    )
    assert (await kube.logged('app="one"')).split() == ["p", "250", 'app="one"']
    await kube.patch({"metadata": {"labels": {"app": "two"}, "annotations": {"note": "new"}}})
    assert (await kube.output()).endswith("seen\n")
