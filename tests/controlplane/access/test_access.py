"""Who may do what: masters, nodes under the Node authorizer and NodeRestriction, everybody else, nobody."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from tests.controlplane.client import MERGE, PODS, STRATEGIC, Api, node, pod
from tests.controlplane.conftest import Login
from wasmlet.controlplane.access.rules import KUBELET_API_ADMIN, Rule
from wasmlet.testing import ControlPlane

NODES = "/api/v1/nodes"
TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
SECRETS = "/api/v1/namespaces/default/secrets"
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def n1(control_plane: ControlPlane, login: Login) -> Api:
    """A client with the identity of node n1."""
    return await login(control_plane.node_kubeconfig("n1"))


async def refused(api: Api, method: str, path: str, body: Any = None, media: str = "application/json") -> str:
    """The message of a 403."""
    status, answer = await api(method, path, body, media=media)
    assert (status, answer["reason"]) == (403, "Forbidden"), answer
    return str(answer["message"])


async def test_a_node_registers_and_keeps_itself(n1: Api, api: Api) -> None:
    assert (await n1("GET", f"{NODES}/n1"))[0] == 404
    made = await n1.ok("POST", NODES, node("n1", taints=[{"key": "wasmlet.dev/provider", "effect": "NoSchedule"}]))
    assert made["status"]["capacity"]["cpu"] == "4"
    status = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    assert (await n1("PATCH", f"{NODES}/n1/status", status, media=STRATEGIC))[0] == 200
    labels = {"metadata": {"labels": {"topology.kubernetes.io/zone": "z", "mine": "x"}}}
    assert (await n1("PATCH", f"{NODES}/n1", labels, media=MERGE))[0] == 200
    lease = {"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40}}
    kept = await n1.ok("POST", LEASES, lease)
    await n1.ok("PUT", f"{LEASES}/n1", kept)
    async with n1.watch(NODES, fieldSelector="metadata.name=n1") as lines:
        assert await lines.take(1) == [("ADDED", "n1")]


async def test_what_a_node_may_not_do_to_nodes_and_leases(n1: Api, api: Api) -> None:
    for name in ("n1", "n2"):
        await api.ok("POST", NODES, node(name))
        await api.ok("POST", LEASES, {"metadata": {"name": name}, "spec": {}})
    assert "cannot delete" in await refused(n1, "DELETE", f"{NODES}/n1")
    assert "only its own Node" in await refused(n1, "GET", f"{NODES}/n2")
    await refused(n1, "GET", NODES)
    await refused(n1, "POST", NODES, node("n3"))
    await refused(n1, "PATCH", f"{NODES}/n2/status", {"status": {"phase": "x"}}, STRATEGIC)
    taints = {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    assert "taints" in await refused(n1, "PATCH", f"{NODES}/n1", taints, MERGE)
    for label in ("kubernetes.io/role", "node-restriction.kubernetes.io/x", "foo.k8s.io/x"):
        assert label in await refused(n1, "PATCH", f"{NODES}/n1", {"metadata": {"labels": {label: "x"}}}, MERGE)
    owners = [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "y"}]
    await refused(n1, "PATCH", f"{NODES}/n1", {"metadata": {"ownerReferences": owners}}, MERGE)
    await refused(n1, "GET", f"{LEASES}/n2")
    await refused(n1, "GET", LEASES)
    await refused(n1, "POST", LEASES, {"metadata": {"name": "n3"}})
    await refused(n1, "POST", "/apis/coordination.k8s.io/v1/namespaces/default/leases", {"metadata": {"name": "n1"}})


async def test_a_node_and_pods(n1: Api, api: Api) -> None:
    mine = await api.ok("POST", PODS, pod("mine", nodeName="n1"))
    await api.ok("POST", PODS, pod("other", nodeName="n2"))
    assert "spec.nodeName field selector" in await refused(n1, "GET", "/api/v1/pods")
    await refused(n1, "GET", "/api/v1/pods?fieldSelector=spec.nodeName=n2")
    await refused(n1, "GET", "/api/v1/pods?fieldSelector=spec.nodeName!=n1")
    await refused(n1, "GET", f"{PODS}?watch=1")
    listed = await n1.ok("GET", "/api/v1/pods?fieldSelector=spec.nodeName=n1")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["mine"]
    assert (await n1("GET", f"{PODS}/mine"))[0] == 200
    await refused(n1, "GET", f"{PODS}/other")
    await refused(n1, "GET", f"{PODS}/gone")
    status = {"metadata": {"uid": mine["metadata"]["uid"]}, "status": {"phase": "Running"}}
    assert (await n1("PATCH", f"{PODS}/mine/status", status, media=STRATEGIC))[0] == 200
    labels = {"metadata": {"labels": {"a": "b"}}}
    assert "labels" in await refused(n1, "PATCH", f"{PODS}/mine/status", labels, MERGE)
    await refused(n1, "PATCH", f"{PODS}/other/status", {"status": {"phase": "Running"}}, STRATEGIC)
    await refused(n1, "PATCH", f"{PODS}/mine", labels, MERGE)
    await refused(n1, "POST", PODS, pod("new", nodeName="n1"))
    await refused(n1, "DELETE", PODS)
    assert "itself" in await refused(n1, "DELETE", f"{PODS}/other")
    await refused(n1, "POST", f"{PODS}/other/eviction", {"metadata": {"name": "other"}})
    await n1.ok("DELETE", f"{PODS}/mine", {"gracePeriodSeconds": 0})


async def test_a_node_makes_mirror_pods_only(n1: Api, api: Api) -> None:
    await api.ok("POST", NODES, node("n1"))
    mirror = pod("static-n1", nodeName="n1")
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    assert (await n1("POST", PODS, mirror))[0] == 201
    mirror["metadata"]["name"] = "static-2"
    mirror["spec"]["volumes"] = [{"name": "s", "secret": {"secretName": "s"}}]
    await refused(n1, "POST", PODS, mirror)


async def test_a_node_reads_what_its_pods_refer_to(n1: Api, api: Api) -> None:
    for name in ("env", "all", "vol", "proj", "pull", "none"):
        await api.ok("POST", SECRETS, {"metadata": {"name": name}})
    await api.ok("POST", MAPS, {"metadata": {"name": "cm"}})
    container = {
        "name": "c",
        "image": "x",
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "a"}}}],
        "envFrom": [{"secretRef": {"name": "all"}}, {"configMapRef": {"name": "cm"}}],
    }
    volumes = [
        {"name": "a", "secret": {"secretName": "vol"}},
        {"name": "b", "projected": {"sources": [{"secret": {"name": "proj"}}]}},
    ]
    await refused(n1, "GET", f"{SECRETS}/env")
    await api.ok(
        "POST", PODS, pod(nodeName="n1", containers=[container], volumes=volumes, imagePullSecrets=[{"name": "pull"}])
    )
    for name in ("env", "all", "vol", "proj", "pull"):
        assert (await n1("GET", f"{SECRETS}/{name}"))[0] == 200, name
    assert "no relationship" in await refused(n1, "GET", f"{SECRETS}/none")
    await refused(n1, "GET", SECRETS)
    await refused(n1, "PUT", f"{SECRETS}/env", {"metadata": {"name": "env"}})
    assert (await n1("GET", f"{MAPS}/cm"))[0] == 200
    assert (await n1("GET", f"{MAPS}/kube-root-ca.crt"))[0] == 200
    async with n1.watch(MAPS, fieldSelector="metadata.name=cm") as lines:
        assert await lines.take(1) == [("ADDED", "cm")]
    for path in ("/api/v1/services", "/apis/node.k8s.io/v1/runtimeclasses", "/apis/storage.k8s.io/v1/csidrivers"):
        assert (await n1("GET", path))[0] == 200
    for path in ("/api/v1/namespaces", "/api/v1/namespaces/default/serviceaccounts/default", "/api/v1/events"):
        await refused(n1, "GET", path)


async def test_tokens_of_service_accounts(n1: Api, api: Api, control_plane: ControlPlane, login: Login) -> None:
    made = await api.ok("POST", PODS, pod(nodeName="n1"))
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": made["metadata"]["uid"]}
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"

    def body(**spec: Any) -> dict[str, Any]:
        return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}

    assert "bound to a pod" in await refused(n1, "POST", path, body())
    await refused(n1, "POST", path, body(boundObjectRef={**bound, "uid": "other"}))
    await refused(n1, "POST", path, body(boundObjectRef=bound, audiences=["a", "b"]))
    issued = await n1.ok("POST", path, body(boundObjectRef=bound, expirationSeconds=3607))
    token = issued["status"]["token"]
    claims = orjson.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["sub"] == "system:serviceaccount:default:default"
    assert claims["kubernetes.io"]["pod"] == {"name": "p", "uid": made["metadata"]["uid"]}
    assert claims["exp"] - claims["iat"] == 3607
    review = await n1.ok("POST", TOKENS, {"spec": {"token": token}})
    assert review["status"]["user"]["username"] == "system:serviceaccount:default:default"
    review = await n1.ok("POST", TOKENS, {"spec": {"token": "none"}})
    assert review["status"] == {"user": {}, "error": "invalid bearer token"}
    status, answer = await api("POST", path, body(expirationSeconds=10))
    assert (status, answer["reason"]) == (422, "Invalid")
    await api.ok("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})
    review = await n1.ok("POST", TOKENS, {"spec": {"token": token}})
    assert "authenticated" not in review["status"]  # it was bound to the pod


async def test_a_token_is_for_its_audience(n1: Api, api: Api) -> None:
    source = {"serviceAccountToken": {"audience": "vault", "path": "t"}}
    volumes = [{"name": "v", "projected": {"sources": [source]}}]
    made = await api.ok("POST", PODS, pod(nodeName="n1", volumes=volumes, automountServiceAccountToken=False))
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": made["metadata"]["uid"]}
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    for wrong in ([], ["other"]):
        body = {"spec": {"boundObjectRef": bound, "audiences": wrong}}
        assert "not found in pod spec volume" in await refused(n1, "POST", path, body)
    issued = await n1.ok("POST", path, {"spec": {"boundObjectRef": bound, "audiences": ["vault"]}})
    token = issued["status"]["token"]
    review = await n1.ok("POST", TOKENS, {"spec": {"token": token, "audiences": ["vault", "safe"]}})
    assert review["status"]["audiences"] == ["vault"]
    review = await n1.ok("POST", TOKENS, {"spec": {"token": token}})
    assert 'token audiences ["vault"] is invalid for the target audiences ["https://' in review["status"]["error"]
    assert (await n1("POST", TOKENS, {"spec": {}}))[0] == 400


async def test_a_token_for_somebody_else_does_not_open_the_api(
    api: Api, control_plane: ControlPlane, login: Login
) -> None:
    bob = await login(control_plane.user_kubeconfig("bob", token=True))
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    audiences: list[str]
    for audiences, status in (([], 200), (["vault"], 401)):
        issued = await api.ok("POST", path, {"spec": {"audiences": audiences}})
        headers = {"Authorization": f"Bearer {issued['status']['token']}"}
        assert (await Api(bob.session, bob.server, headers)("GET", "/version"))[0] == status


async def test_reviews_of_access(n1: Api) -> None:
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

    async def allowed(user: str, groups: list[str], **attributes: Any) -> bool:
        body = {"spec": {"user": user, "groups": groups, "resourceAttributes": attributes}}
        return bool((await n1.ok("POST", path, body))["status"]["allowed"])

    what = {"verb": "get", "resource": "nodes", "subresource": "proxy", "name": "n1"}
    assert await allowed("kube-apiserver-kubelet-client", ["system:masters"], **what)
    assert not await allowed("bob", ["system:authenticated"], **what)
    assert await allowed("system:node:n2", ["system:nodes"], verb="get", resource="nodes", name="n2")
    assert not await allowed("system:node:n2", ["system:nodes"], verb="get", resource="nodes", subresource="proxy")
    listed = {"verb": "list", "resource": "pods"}
    assert not await allowed("system:node:n2", ["system:nodes"], **listed)
    for wanted, answer in (("n2", True), ("n1", False)):
        selector = {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": [wanted]}]}
        assert await allowed("system:node:n2", ["system:nodes"], **listed, fieldSelector=selector) is answer
    for wrong in (
        {"spec": {"resourceAttributes": what}},
        {"spec": {"user": "bob"}},
        {"spec": {"user": "bob", "resourceAttributes": what, "nonResourceAttributes": {"path": "/", "verb": "get"}}},
    ):
        assert (await n1("POST", path, wrong))[0] in (400, 422)
    local = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews"
    pods = {"verb": "get", "resource": "pods", "namespace": "default"}
    asked = {"spec": {"user": "bob", "resourceAttributes": pods}}
    assert (await n1.ok("POST", local, asked))["status"] == {"allowed": False}
    pods["namespace"] = "kube-system"
    assert (await n1("POST", local, asked))[0] == 422


async def test_who_may_use_the_kubelet_api_is_a_table(n1: Api, control_plane: ControlPlane) -> None:
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

    async def allowed(verb: str, subresource: str, *groups: str, name: str = "n1") -> bool:
        what = {"verb": verb, "resource": "nodes", "subresource": subresource, "name": name}
        body = {"spec": {"user": "prometheus", "groups": list(groups), "resourceAttributes": what}}
        return bool((await n1.ok("POST", path, body))["status"]["allowed"])

    async def may_get(where: str) -> bool:
        body = {"spec": {"groups": ["health"], "nonResourceAttributes": {"verb": "get", "path": where}}}
        return bool((await n1.ok("POST", path, body))["status"]["allowed"])

    control_plane.grant("monitors", Rule(("get",), ("nodes/metrics", "nodes/stats"), names=("n1",)))
    control_plane.grant("admins", *KUBELET_API_ADMIN)
    control_plane.grant("health", Rule(("get",), paths=("/healthz/*",)))
    assert await allowed("get", "metrics", "monitors")
    assert not await allowed("create", "metrics", "monitors")
    assert not await allowed("get", "metrics", "monitors", name="n2")
    assert not await allowed("get", "proxy", "monitors")
    assert not await allowed("get", "metrics")
    for subresource in ("stats", "metrics", "log", "pods", "healthz", "configz", "proxy"):
        assert await allowed("create", subresource, "admins")
    assert not await allowed("get", "status", "admins")
    assert await may_get("/healthz/ping")
    assert not await may_get("/metrics")
    control_plane.revoke("monitors")
    assert not await allowed("get", "metrics", "monitors")


async def test_everyone_else(control_plane: ControlPlane, login: Login, api: Api) -> None:
    for token in (True, False):
        bob = await login(control_plane.user_kubeconfig("bob", ["team"], token=token))
        assert 'User "bob" cannot list resource "pods"' in await refused(bob, "GET", PODS)
        assert (await bob("GET", "/api/v1"))[0] == 200
        assert (await bob("GET", "/version"))[0] == 200
        await refused(bob, "GET", PODS + "?watch=1")
    master = await login(control_plane.user_kubeconfig("alice", ["system:masters"], token=True))
    assert (await master("GET", PODS))[0] == 200
    assert 'User "bob" cannot' in await refused(
        Api(master.session, master.server, {**master.headers, "Impersonate-User": "bob"}), "GET", PODS
    )


async def test_nobody(control_plane: ControlPlane, login: Login) -> None:
    bob = await login(control_plane.user_kubeconfig("bob", token=True))
    nobody = Api(bob.session, bob.server, {})
    assert "system:anonymous" in await refused(nobody, "GET", PODS)
    await refused(nobody, "GET", "/api")
    assert await nobody("GET", "/healthz") == (200, "ok")
    stranger = Api(bob.session, bob.server, {"Authorization": "Bearer guess"})
    status, answer = await stranger("GET", PODS)
    assert (status, answer["reason"]) == (401, "Unauthorized")
