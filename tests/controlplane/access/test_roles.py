"""Roles and their bindings: what they allow, what is no role, and that nobody gives away what they do not have."""

from __future__ import annotations

import pytest

from tests.controlplane.client import MERGE, PODS, Api, Kubectl, Object
from tests.controlplane.conftest import Login
from wasmlet.testing import ControlPlane

RBAC = "/apis/rbac.authorization.k8s.io/v1"
SPACE = f"{RBAC}/namespaces/default"
READ_PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}
ALICE = {"kind": "User", "name": "alice"}


def role(name: str, *rules: Object) -> Object:
    return {"metadata": {"name": name}, "rules": list(rules)}


def binding(name: str, to: str, *subjects: Object, kind: str = "ClusterRole") -> Object:
    return {"metadata": {"name": name}, "roleRef": {"kind": kind, "name": to}, "subjects": list(subjects)}


async def test_a_cluster_role_is_for_everything_a_role_for_its_namespace(
    api: Api, login: Login, control_plane: ControlPlane
) -> None:
    alice = await login(control_plane.user_kubeconfig("alice", ["staff"]))
    assert (await alice("GET", PODS))[0] == 403
    await api.ok("POST", f"{SPACE}/roles", role("readers", READ_PODS))
    made = await api.ok("POST", f"{SPACE}/rolebindings", binding("readers", "readers", ALICE, kind="Role"))
    assert made["subjects"] == [{**ALICE, "apiGroup": "rbac.authorization.k8s.io"}]
    await alice.ok("GET", PODS)
    assert (await alice("GET", "/api/v1/pods"))[0] == 403
    assert (await alice("GET", "/api/v1/namespaces/kube-system/pods"))[0] == 403
    assert (await alice("DELETE", f"{PODS}/p"))[0] == 403
    await api.ok("DELETE", f"{SPACE}/rolebindings/readers")
    assert (await alice("GET", PODS))[0] == 403
    await api.ok("POST", f"{RBAC}/clusterroles", role("readers", READ_PODS))
    staff = {"kind": "Group", "name": "staff"}
    await api.ok("POST", f"{RBAC}/clusterrolebindings", binding("readers", "readers", staff))
    await alice.ok("GET", "/api/v1/pods")
    # A role that loses its rules, or goes, takes the right with it.
    await api.ok("PATCH", f"{RBAC}/clusterroles/readers", {"rules": []}, media=MERGE)
    assert (await alice("GET", PODS))[0] == 403


async def test_a_service_account_and_one_name_alone(kube: Kubectl, api: Api) -> None:
    await kube("create", "serviceaccount", "robot")
    one = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["get"]}
    await api.ok("POST", f"{RBAC}/clusterroles", role("mine", one))
    robot = {"kind": "ServiceAccount", "name": "robot", "namespace": "default"}
    await api.ok("POST", f"{SPACE}/rolebindings", binding("mine", "mine", robot))
    who = "--as=system:serviceaccount:default:robot"
    assert (await kube("auth", "can-i", "get", "configmap/mine", who)).strip() == "yes"
    assert (await kube.run("auth", "can-i", "get", "configmap/other", who))[1].strip() == "no"
    assert (await kube.run("auth", "can-i", "list", "configmaps", who))[1].strip() == "no"
    assert (await kube.run("auth", "can-i", "get", "configmap/mine", who, "-n", "kube-system"))[1].strip() == "no"


async def test_nobody_gives_away_what_they_do_not_have(api: Api, login: Login, control_plane: ControlPlane) -> None:
    writes = {
        "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["roles", "rolebindings"],
        "verbs": ["create", "patch", "get"],
    }
    await api.ok("POST", f"{RBAC}/clusterroles", role("writers", writes, READ_PODS))
    await api.ok("POST", f"{SPACE}/rolebindings", binding("writers", "writers", ALICE))
    alice = await login(control_plane.user_kubeconfig("alice"))
    await alice.ok("POST", f"{SPACE}/roles", role("same", READ_PODS))
    more = {**READ_PODS, "verbs": ["get", "delete"]}
    status, answer = await alice("POST", f"{SPACE}/roles", role("more", more))
    assert (status, answer["reason"]) == (403, "Forbidden")
    assert "is attempting to grant RBAC permissions not currently held:\n" in answer["message"]
    assert '{APIGroups:[""], Resources:["pods"], Verbs:["get", "delete"]}' in answer["message"]
    status, _ = await alice("PATCH", f"{SPACE}/roles/same", {"rules": [more]}, media=MERGE)
    assert status == 403
    # What changes no rule passes.
    await alice.ok("PATCH", f"{SPACE}/roles/same", {"metadata": {"labels": {"a": "b"}}}, media=MERGE)
    bob = {"kind": "User", "name": "bob"}
    status, _ = await alice("POST", f"{SPACE}/rolebindings", binding("all", "cluster-admin", bob))
    assert status == 403
    await alice.ok("POST", f"{SPACE}/rolebindings", binding("same", "same", bob, kind="Role"))
    escalates = {
        "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["roles", "clusterroles"],
        "verbs": ["escalate", "bind"],
    }
    await api.ok("PATCH", f"{RBAC}/clusterroles/writers", {"rules": [writes, escalates]}, media=MERGE)
    await alice.ok("POST", f"{SPACE}/roles", role("more", more))
    await alice.ok("POST", f"{SPACE}/rolebindings", binding("all", "cluster-admin", bob))


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        (f"{SPACE}/roles", role("r", {"verbs": ["get"]}), "resource rules must supply at least one api group"),
        (f"{SPACE}/roles", role("r", {**READ_PODS, "verbs": []}), "verbs must contain at least one value"),
        (f"{SPACE}/roles", role("r", {"verbs": ["get"], "nonResourceURLs": ["/a"]}), "cannot apply to non-resource"),
        (f"{RBAC}/clusterroles", role("r", {**READ_PODS, "nonResourceURLs": ["/a"]}), "cannot apply to both"),
        (f"{RBAC}/clusterroles", role("r", {**READ_PODS, "verbs": "get"}), "must be a list of strings"),
        (f"{RBAC}/clusterroles", role("a/b"), "may not contain '/'"),
        (f"{RBAC}/clusterrolebindings", binding("b", "r", ALICE, kind="Role"), 'Unsupported value: "Role"'),
        (f"{RBAC}/clusterrolebindings", binding("b", ""), "roleRef.name: Required value"),
        (f"{RBAC}/clusterrolebindings", binding("b", "r", {"kind": "Robot", "name": "x"}), 'value: "Robot"'),
        (
            f"{RBAC}/clusterrolebindings",
            binding("b", "r", {"kind": "ServiceAccount", "name": "x"}),
            "subjects[0].namespace: Required value",
        ),
    ],
)
async def test_what_is_no_role_is_refused(api: Api, path: str, body: Object, why: str) -> None:
    status, answer = await api("POST", path, body)
    assert status == 422, answer
    assert why in answer["message"]


async def test_a_binding_stays_with_its_role(api: Api) -> None:
    await api.ok("POST", f"{RBAC}/clusterrolebindings", binding("system:b", "one", ALICE))
    path = f"{RBAC}/clusterrolebindings/system:b"
    status, answer = await api("PATCH", path, {"roleRef": {"name": "two"}}, media=MERGE)
    assert (status, "cannot change roleRef" in answer["message"]) == (422, True)
    await api.ok("PATCH", path, {"subjects": [{"kind": "Group", "name": "g"}]}, media=MERGE)


async def test_kubectl_makes_and_shows_them(kube: Kubectl) -> None:
    await kube("create", "role", "readers", "--verb=get,list", "--resource=pods")
    await kube("create", "clusterrole", "health", "--verb=get", "--non-resource-url=/healthz")
    await kube("create", "rolebinding", "readers", "--role=readers", "--serviceaccount=default:default", "--user=u")
    await kube("create", "clusterrolebinding", "health", "--clusterrole=health", "--group=g")
    head, line = (await kube("get", "rolebindings", "-o", "wide")).splitlines()
    assert head.split() == ["NAME", "ROLE", "AGE", "USERS", "GROUPS", "SERVICEACCOUNTS"]
    assert [word for word in line.split() if word != line.split()[2]] == [
        "readers",
        "Role/readers",
        "u",
        "default/default",
    ]
    assert "pods" in await kube("describe", "role", "readers")
    assert "cluster-admin" in await kube("get", "clusterroles")
