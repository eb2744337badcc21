"""The node's API asks the API server who somebody is and what they may: x509 or TokenReview, then nodes/... by RBAC."""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp
import pytest

from tests.conformance.harness import Kube
from wasmlet.controlplane.access.rules import Rule

PATHS = ("metrics", "stats/summary", "pods", "configz", "healthz")


async def ask(kube: Kube, path: str, token: str = "") -> int:
    """The HTTP status for somebody with that token, and no certificate."""
    status = (await kube.node_object())["status"]
    address = next(a["address"] for a in status["addresses"] if a["type"] == "InternalIP")
    url = f"https://{address}:{status['daemonEndpoints']['kubeletEndpoint']['Port']}/{path}"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context, headers=headers) as answer:
        return answer.status


async def token_of(kube: Kube, account: str) -> str:
    await kube.make("serviceaccounts", {"metadata": {"name": account}})
    answer = await kube.make(f"serviceaccounts/{account}/token", {"spec": {}})
    token: str = answer["status"]["token"]
    return token


@pytest.mark.parametrize("path", PATHS)
async def test_nobody_and_somebody_without_rights(kube: Kube, path: str) -> None:
    assert await ask(kube, path) == 401
    assert await ask(kube, path, "not-a-token") == 401
    assert await ask(kube, path, await token_of(kube, "nobody")) == 403


async def test_a_right_to_one_part(kube: Kube) -> None:
    token = await token_of(kube, "scraper")
    await allow(kube, "scraper", "nodes/metrics")
    assert await ask(kube, "metrics", token) == 200
    assert await ask(kube, "metrics/resource", token) == 200
    assert await ask(kube, "stats/summary", token) == 403
    assert await ask(kube, "pods", token) == 403


async def test_a_right_to_the_rest(kube: Kube) -> None:
    token = await token_of(kube, "operator")
    await allow(kube, "operator", "nodes/proxy")
    assert [await ask(kube, path, token) for path in PATHS] == [403, 403, 200, 200, 200]


async def allow(kube: Kube, account: str, resource: str) -> None:
    """Let an account get a subresource of nodes."""
    plane: Any = kube.machine.plane
    if not kube.machine.real:
        subject = f"system:serviceaccount:{kube.namespace}:{account}"
        plane.grant(subject, Rule(verbs=("get",), resources=(resource,)))
        return
    name, rbac = f"{kube.namespace}-{account}", "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]
    subjects = [{"kind": "ServiceAccount", "name": account, "namespace": kube.namespace}]
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": name}
    path = f"/apis/{rbac}/v1"
    await kube.admin.create(f"{path}/clusterroles", {"metadata": {"name": name}, "rules": rules})
    await kube.admin.create(
        f"{path}/clusterrolebindings", {"metadata": {"name": name}, "roleRef": role, "subjects": subjects}
    )
