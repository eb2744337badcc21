"""Jobs, Deployments, StatefulSets and DaemonSets run to completion and roll out, as their controllers have it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.harness import Kube

pytestmark = pytest.mark.real_cluster


def template(kube: Kube, *script: str, restart: str = "Always") -> dict[str, Any]:
    pod = kube.pod(*script, metadata={"labels": {"app": "x"}})
    del pod["spec"]["nodeName"]
    pod["spec"] |= {"restartPolicy": restart, "nodeSelector": {"kubernetes.io/hostname": kube.node}}
    return {"metadata": {"labels": {"app": "x"}}, "spec": pod["spec"]}


async def make(kube: Kube, kind: str, **spec: Any) -> None:
    group = "batch" if kind == "jobs" else "apps"
    path = f"/apis/{group}/v1/namespaces/{kube.namespace}/{kind}"
    selected = {} if kind == "jobs" else {"selector": {"matchLabels": {"app": "x"}}}
    await kube.admin.create(path, {"metadata": {"name": "w"}, "spec": spec | selected})


async def drop(kube: Kube, kind: str) -> None:
    await kube.kubectl("delete", f"{kind}/w", "--cascade=foreground", "--timeout=60s")


async def test_a_job(kube: Kube) -> None:
    await make(kube, "jobs", completions=3, parallelism=2, template=template(kube, "print", "x", restart="Never"))
    await kube.kubectl("wait", "job/w", "--for=condition=Complete", "--timeout=60s")
    await drop(kube, "job")


async def test_a_deployment_that_rolls_out(kube: Kube) -> None:
    await make(kube, "deployments", replicas=3, template=template(kube, "sleep", "1000"))
    await kube.kubectl("rollout", "status", "deployment/w", "--timeout=60s")
    await kube.kubectl("set", "env", "deployment/w", "A=b")
    await kube.kubectl("rollout", "status", "deployment/w", "--timeout=60s")
    await drop(kube, "deployment")


async def test_a_stateful_set(kube: Kube) -> None:
    await make(kube, "statefulsets", replicas=2, serviceName="w", template=template(kube, "sleep", "1000"))
    await kube.kubectl("rollout", "status", "statefulset/w", "--timeout=60s")
    first = await kube.get("w-0")
    await kube.delete("w-0")
    await kube.until(lambda pod: pod["metadata"]["uid"] != first["metadata"]["uid"], "w-0")
    await kube.ready("w-0")
    await drop(kube, "statefulset")


async def test_a_daemon_set(kube: Kube) -> None:
    await make(kube, "daemonsets", template=template(kube, "sleep", "1000"))
    await kube.kubectl("rollout", "status", "daemonset/w", "--timeout=60s")
    await drop(kube, "daemonset")
