"""Variables that tell a pod about itself: names, labels, annotations, account, addresses."""

from __future__ import annotations

from tests.conformance.harness import Kube

PATHS = {
    "NAME": "metadata.name",
    "NAMESPACE": "metadata.namespace",
    "POD_UID": "metadata.uid",
    "LABEL": "metadata.labels['app.kubernetes.io/name']",
    "ANNOTATION": "metadata.annotations['note']",
    "NODE": "spec.nodeName",
    "ACCOUNT": "spec.serviceAccountName",
    "HOST": "status.hostIP",
    "HOSTS": "status.hostIPs",
    "POD": "status.podIP",
    "PODS": "status.podIPs",
}


async def test_fields(kube: Kube) -> None:
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in PATHS.items()]
    metadata = {"labels": {"app.kubernetes.io/name": "x"}, "annotations": {"note": "y z"}}
    script = [word for name in PATHS for word in ("env", name)]
    pod = await kube.create(*script, env=env, metadata=metadata)
    values = dict(line.split("=", 1) for line in (await kube.output()).splitlines())
    host = (await kube.ended())["status"]["hostIP"]
    assert values == {
        "NAME": "p",
        "NAMESPACE": kube.namespace,
        "POD_UID": pod["metadata"]["uid"],
        "LABEL": "x",
        "ANNOTATION": "y z",
        "NODE": kube.node,
        "ACCOUNT": "default",
        "HOST": host,
        "HOSTS": host,
        "POD": host,
        "PODS": host,
    }
