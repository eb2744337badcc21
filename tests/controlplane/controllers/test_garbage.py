"""What becomes of objects whose owner is deleted: in the background, before it, or not at all."""

from __future__ import annotations

from tests.controlplane.client import MERGE, PODS, Api, Kubectl, Object
from tests.controlplane.controllers.test_deployments import version
from tests.controlplane.controllers.workloads import DEPLOYMENTS, SETS, available, deployment, running, until

MAPS = "/api/v1/namespaces/default/configmaps"


def config(name: str, *owners: Object, blocks: bool = False) -> Object:
    references = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            **({"blockOwnerDeletion": True} if blocks else {}),
        }
        for owner in owners
    ]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": references}}


def names(found: list[Object]) -> list[str]:
    return [item["metadata"]["name"] for item in found if item["metadata"]["name"] != "kube-root-ca.crt"]


async def test_what_an_object_owns_goes_after_it(api: Api) -> None:
    one = await api.ok("POST", MAPS, config("one"))
    two = await api.ok("POST", MAPS, config("two"))
    below = await api.ok("POST", MAPS, config("below", one))
    await api.ok("POST", MAPS, config("deeper", below))
    await api.ok("POST", MAPS, config("shared", one, two))
    await api.ok("DELETE", f"{MAPS}/one")
    await until(api, MAPS, lambda found: names(found) == ["shared", "two"])
    shared = await api.ok("GET", f"{MAPS}/shared")
    assert [item["name"] for item in shared["metadata"]["ownerReferences"]] == ["two"]
    await api.ok("DELETE", f"{MAPS}/two")
    await until(api, MAPS, lambda found: names(found) == [])


async def test_an_owner_that_was_never_there_does_not_count(api: Api) -> None:
    one = await api.ok("POST", MAPS, config("one"))
    ghost = {**one, "metadata": {"name": "ghost", "uid": "no-such-uid"}}
    unknown = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "thing", "uid": "elsewhere"}}
    await api.ok("POST", MAPS, config("lost", ghost))
    await api.ok("POST", MAPS, config("kept", unknown))
    await until(api, MAPS, lambda found: names(found) == ["kept", "one"])


async def test_a_reference_has_to_name_its_owner_rightly(api: Api) -> None:
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "elsewhere"}})
    one = await api.ok("POST", MAPS, config("one"))
    far = "/api/v1/namespaces/elsewhere/configmaps"
    await api.ok("POST", far, config("far", one))  # the owner is in another namespace
    misnamed = {**one, "metadata": {**one["metadata"], "name": "two"}}
    await api.ok("POST", MAPS, config("misnamed", misnamed))
    mistaken = {**one, "kind": "Secret"}
    await api.ok("POST", MAPS, config("mistaken", mistaken))
    node = {"metadata": {"name": "n1", "ownerReferences": config("x", one)["metadata"]["ownerReferences"]}}
    await api.ok("POST", "/api/v1/nodes", node)  # it is in no namespace, and may name no owner that is in one
    await until(api, far, lambda found: names(found) == [])
    await until(api, MAPS, lambda found: names(found) == ["one"])
    await api.ok("GET", "/api/v1/nodes/n1")


async def test_custom_resources_own_and_are_owned(api: Api) -> None:
    names_ = {"plural": "pools", "singular": "pool", "kind": "Pool"}
    schema = {"openAPIV3Schema": {"type": "object"}}
    version_ = {"name": "v1", "served": True, "storage": True, "schema": schema}
    spec = {"group": "example.com", "scope": "Cluster", "names": names_, "versions": [version_]}
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await api.ok("POST", path, {"metadata": {"name": "pools.example.com"}, "spec": spec})
    pools = "/apis/example.com/v1/pools"
    pool = {"apiVersion": "example.com/v1", "kind": "Pool", "metadata": {"name": "p"}}
    made = await api.ok("POST", pools, pool)
    owned = {**pool, "metadata": {"name": "q", "ownerReferences": config("x", made)["metadata"]["ownerReferences"]}}
    await api.ok("POST", pools, owned)
    await api.ok("POST", MAPS, config("one", made))
    blocking = config("two", made, blocks=True)
    blocking["metadata"]["finalizers"] = ["example.com/hold"]
    await api.ok("POST", MAPS, blocking)
    await api.ok("DELETE", f"{pools}/p", {"propagationPolicy": "Foreground"})
    await until(api, MAPS, lambda found: names(found) == ["two"] and "deletionTimestamp" in found[-1]["metadata"])
    assert (await api.ok("GET", f"{pools}/p"))["metadata"]["finalizers"] == ["foregroundDeletion"]
    await api.ok("PATCH", f"{MAPS}/two", {"metadata": {"finalizers": None}}, media=MERGE)
    await until(api, pools, lambda found: found == [])
    made = await api.ok("POST", pools, pool)
    await api.ok("POST", MAPS, config("kept", made))
    await api.ok("DELETE", f"{pools}/p", {"propagationPolicy": "Orphan"})
    await until(api, MAPS, lambda found: all("ownerReferences" not in item["metadata"] for item in found))
    assert names((await api.ok("GET", MAPS))["items"]) == ["kept"]


async def test_foreground_waits_for_what_blocks_it(kube: Kubectl, api: Api) -> None:
    one = await api.ok("POST", MAPS, config("one"))
    below = config("below", one, blocks=True)
    below["metadata"]["finalizers"] = ["example.com/hold"]
    await api.ok("POST", MAPS, below)
    await kube("delete", "configmap", "one", "--cascade=foreground", "--wait=false")
    found = await until(api, MAPS, lambda found: all("deletionTimestamp" in item["metadata"] for item in found[:1]))
    assert names(found) == ["below", "one"]
    assert next(item for item in found if item["metadata"]["name"] == "one")["metadata"]["finalizers"] == [
        "foregroundDeletion"
    ]
    await api.ok("PATCH", f"{MAPS}/below", {"metadata": {"finalizers": None}}, media=MERGE)
    await until(api, MAPS, lambda found: names(found) == [])


async def test_orphans_stay(kube: Kubectl, api: Api) -> None:
    async with running(api):
        await api.ok("POST", DEPLOYMENTS, deployment())
        await available(api, 2)
        before = {item["metadata"]["uid"] for item in (await api.ok("GET", PODS))["items"]}
        await kube("delete", "deployment", "web", "--cascade=orphan")
        (orphan,) = await until(api, SETS, lambda found: "ownerReferences" not in found[0]["metadata"])
        await kube("delete", "rs", orphan["metadata"]["name"], "--cascade=orphan")
        pods = (await api.ok("GET", PODS))["items"]
        assert {item["metadata"]["uid"] for item in pods} == before
        # A Deployment of the same selector takes them again, under a ReplicaSet of its own.
        await api.ok("POST", DEPLOYMENTS, deployment())
        await available(api, 2)


async def test_foreground_of_a_deployment_ends_with_its_pods(kube: Kubectl, api: Api) -> None:
    async with running(api):
        await api.ok("POST", DEPLOYMENTS, deployment())
        await available(api, 2)
        await kube("delete", "deployment", "web", "--cascade=foreground")
        assert (await api.ok("GET", PODS))["items"] == []
        assert (await api.ok("GET", SETS))["items"] == []


async def test_a_namespace_goes_with_all_that_is_in_it(kube: Kubectl, api: Api) -> None:
    await api.ok("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
    body = deployment()
    await api.ok("POST", "/apis/apps/v1/namespaces/n/deployments", body)
    await until(api, "/api/v1/namespaces/n/pods", lambda found: len(found) == 2)
    await kube("delete", "namespace", "n")
    assert (await api.ok("GET", "/api/v1/namespaces/n/pods"))["items"] == []
    before = await version(api)
    for _ in range(20):
        await api.ok("GET", MAPS)
    assert await version(api) == before


async def test_a_policy_that_is_none_is_refused(api: Api) -> None:
    await api.ok("POST", MAPS, config("one"))
    status, answer = await api("DELETE", f"{MAPS}/one", {"propagationPolicy": "Sideways"})
    assert (status, "propagationPolicy is one of" in answer["message"]) == (400, True)
