"""Applications on a pool, scaled by a cluster's own HorizontalPodAutoscaler: it reads what the nodes measure.

    pytest tests/operator/test_applications.py --kubeconfig admin.kubeconfig --node-credentials ./node-kubeconfig \
        --client-ca-file ca.crt

The cluster needs a metrics-server that takes a node's port from its status (`--kubelet-use-node-status-port`), and does
not verify its certificate (`--kubelet-insecure-tls`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tests.conftest import CompileGuest
from tests.guests import build
from tests.node.real import RealPlane
from tests.operator.harness import Fleet, Raw
from wasmlet.kube import errors
from wasmlet.kube.client import MERGE_PATCH

METRICS = "/apis/metrics.k8s.io/v1beta1"
MOST = 4
pytestmark = [pytest.mark.needs_root("the pods of nodes are put into namespaces"), pytest.mark.timeout(1200)]


@pytest.fixture
def guest(compile_guest: CompileGuest) -> str:
    """An image that works or sleeps, as its arguments say."""
    return f"file://{build('driver', compile_guest)}"


@pytest.fixture
async def measured(guest: str, fleet: Fleet) -> Fleet:
    """A cluster with the controller and with the Metrics API; the guest is built before, which blocks."""
    if not isinstance(fleet.plane, RealPlane):
        pytest.skip("needs a cluster with the controller of HorizontalPodAutoscalers: --kubeconfig")
    try:
        await fleet.admin.get(f"{METRICS}/nodes")
    except (errors.ObjectNotFound, errors.ServerError):
        pytest.skip("needs a cluster with metrics-server")
    return fleet


async def test_an_application_is_scaled_by_what_its_pods_use(measured: Fleet, guest: str) -> None:
    fleet = measured
    await fleet.operator()
    await fleet.pool(replicas=2)
    await fleet.ready(2)
    deployments = f"/apis/apps/v1/namespaces/{fleet.namespace}/deployments"

    async def runs(*words: str) -> None:
        """Have the pods run these words."""
        container = {"name": "c", "image": guest, "args": list(words), "resources": {"requests": {"cpu": "20m"}}}
        patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
        await fleet.admin.patch(f"{deployments}/web", patch, MERGE_PATCH)

    def scaled(count: int) -> Callable[[Mapping[str, Raw]], bool]:
        def check(found: Mapping[str, Raw]) -> bool:
            status = found["web"].get("status") or {}
            return found["web"]["spec"]["replicas"] == count == status.get("availableReplicas", 0)

        return check

    await fleet.deployment("web", 1, guest)
    await runs("spin")
    target = {"type": "Utilization", "averageUtilization": 50}
    body = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": MOST,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    }
    await fleet.admin.create(f"/apis/autoscaling/v2/namespaces/{fleet.namespace}/horizontalpodautoscalers", body)
    await fleet.until(deployments, scaled(MOST), seconds=300)
    assert "cpu: " in await fleet.run("describe", "hpa", "web", "-n", fleet.namespace)
    assert "web-" in await fleet.run("top", "pods", "-n", fleet.namespace)
    assert "edge-0" in await fleet.run("top", "nodes")
    await runs("sleep", "100000")
    await fleet.until(deployments, scaled(1), seconds=600)
