"""What an API server says to creates, updates, patches and deletes, right and wrong ones."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controlplane.client import APPLY, JSON_PATCH, MERGE, PODS, STRATEGIC, Api, node, pod
from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.retention import Retention
from wasmlet.controlplane.storage.store import Store

MAPS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def config(name: str = "x", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def test_a_new_object_has_what_the_server_gives_it(api: Api) -> None:
    made = await api.ok("POST", MAPS, {"metadata": {"generateName": "x-", "uid": "mine", "generation": 7}})
    meta = made["metadata"]
    assert meta["name"].startswith("x-")
    assert len(meta["name"]) == 7
    assert len(meta["uid"]) == 36
    assert meta["namespace"] == "default"
    assert meta["creationTimestamp"].endswith("Z")
    assert meta["resourceVersion"].isdigit()
    assert (made["kind"], made["apiVersion"]) == ("ConfigMap", "v1")
    assert (await api.ok("GET", f"{MAPS}/{meta['name']}")) == made


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "reason"),
    [
        ("POST", MAPS, {"metadata": {"name": "twice"}}, 409, "AlreadyExists"),
        ("POST", MAPS, {"metadata": {"name": "UPPER"}}, 422, "Invalid"),
        ("POST", MAPS, {"metadata": {}}, 422, "Invalid"),
        ("POST", MAPS, {"metadata": {"name": "x", "labels": {"a": "b c"}}}, 422, "Invalid"),
        ("POST", MAPS, {"metadata": {"name": "x", "resourceVersion": "1"}}, 400, "BadRequest"),
        ("POST", MAPS, {"metadata": {"name": "x", "namespace": "other"}}, 400, "BadRequest"),
        ("POST", MAPS, {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x"}}, 400, "BadRequest"),
        ("POST", MAPS, b"{", 400, "BadRequest"),
        ("POST", MAPS, b"[]", 400, "BadRequest"),
        ("POST", MAPS, {"metadata": {"name": "x"}, "data": {"a": 1}}, 422, "Invalid"),
        ("POST", SECRETS, {"metadata": {"name": "x"}, "data": {"a": "plain!"}}, 422, "Invalid"),
        ("POST", MAPS, b'{"a":' * 5000, 400, "BadRequest"),
        ("POST", PODS, {"metadata": {"name": "x"}, "spec": "no"}, 400, "BadRequest"),
        ("POST", "/api/v1/namespaces/nowhere/configmaps", {"metadata": {"name": "x"}}, 404, "NotFound"),
        ("GET", f"{MAPS}/none", None, 404, "NotFound"),
        ("PUT", f"{MAPS}/none", {"metadata": {"name": "none"}}, 404, "NotFound"),
        ("PUT", f"{MAPS}/twice", {"metadata": {"name": "other"}}, 400, "BadRequest"),
        ("PATCH", f"{MAPS}/none", {}, 415, "UnsupportedMediaType"),
        ("DELETE", f"{MAPS}/none", None, 404, "NotFound"),
        ("DELETE", f"{MAPS}/twice", {"preconditions": {"uid": "other"}}, 409, "Conflict"),
        ("DELETE", f"{MAPS}/twice", {"preconditions": {"resourceVersion": "1"}}, 409, "Conflict"),
        ("DELETE", f"{MAPS}/twice", {"gracePeriodSeconds": "soon"}, 400, "BadRequest"),
        ("DELETE", f"{MAPS}/twice", {"gracePeriodSeconds": -1}, 422, "Invalid"),
        ("POST", f"{MAPS}/twice", {}, 405, "MethodNotAllowed"),
        ("GET", "/api/v1/nonsense", None, 404, "NotFound"),
        ("GET", "/apis/apps/v1/daemonsets", None, 404, "NotFound"),
        ("GET", f"{MAPS}/twice/status", None, 404, "NotFound"),
        ("DELETE", "/api/v1/namespaces/default", None, 403, "Forbidden"),
        ("GET", "/nonsense", None, 404, "NotFound"),
        ("POST", "/version", {}, 405, "MethodNotAllowed"),
    ],
)
async def test_refusals(api: Api, method: str, path: str, body: Any, code: int, reason: str) -> None:
    await api.ok("POST", MAPS, config("twice"))
    status, answer = await api(method, path, body)
    assert (status, answer["code"], answer["reason"]) == (code, code, reason), answer
    assert (answer["kind"], answer["status"]) == ("Status", "Failure")
    assert answer["message"]


def test_events_do_not_pile_up() -> None:
    store = Store()
    Retention(store, limit=3)
    for at in range(5):
        store.write(core("events"), {"metadata": {"name": f"e{at}", "namespace": "default"}})
    assert [record.name for record in store["events"]] == ["e2", "e3", "e4"]


def test_events_are_bounded_by_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wasmlet.controlplane.storage.retention.EVENTS_BYTES", 3000)
    store = Store()
    Retention(store)
    for at in range(5):
        metadata = {"name": f"e{at}", "namespace": "default"}
        store.write(core("events"), {"metadata": metadata, "message": "x" * (700 if at < 4 else 9000)})
        if at == 3:
            assert [record.name for record in store["events"]] == ["e1", "e2", "e3"]
    assert [record.name for record in store["events"]] == ["e4"]


@pytest.mark.parametrize("path", [MAPS, SECRETS])
async def test_keys_of_data_are_file_names_that_stay_where_they_are(api: Api, path: str) -> None:
    for number, (key, why) in enumerate(
        [
            (".", "must not be '.'"),
            ("..", "must not be '..'"),
            ("..data", "must not start with '..'"),
            ("...", "must not start with '..'"),
            ("a/b", "a valid config key"),
            ("", "a valid config key"),
            ("a" * 254, "a valid config key"),
            (".a", None),
            ("a..b", None),
            ("a" * 253, None),
        ]
    ):
        body = {"metadata": {"name": f"x{number}"}, "data": {key: "YQ=="}}
        status, answer = await api("POST", path, body)
        assert status == (201 if why is None else 422), (key, answer)
        if why is not None:
            (cause,) = answer["details"]["causes"]
            assert cause["field"] == f"data[{key}]"
            assert why in cause["message"]
    made = await api.ok("POST", path, {"metadata": {"name": "later"}})
    assert (await api("PATCH", f"{path}/{made['metadata']['name']}", {"data": {"..": "YQ=="}}, media=MERGE))[0] == 422
    if path == MAPS:
        for body in ({"binaryData": {"..": "YQ=="}}, {"data": {"a": "b"}, "binaryData": {"a": "YQ=="}}):
            assert (await api("POST", path, {"metadata": {"name": "binary"}, **body}))[0] == 422


async def test_a_pod_names_no_key_and_no_path_that_leads_elsewhere(api: Api) -> None:
    def variable(which: str, key: str) -> dict[str, Any]:
        return {"name": "A", "valueFrom": {which: {"name": "x", "key": key}}}

    items = [{"key": "a", "path": path} for path in ("..a", "a/../b", "/a", "", "fine/..x")]
    wrong = pod("p", volumes=[
        {"name": "m", "configMap": {"name": "x", "items": items}},
        {"name": "s", "projected": {"sources": [{"secret": {"name": "x", "items": [{"key": "a", "path": ".."}]}}]}},
    ])  # fmt: skip
    wrong["spec"]["containers"][0]["env"] = [variable("configMapKeyRef", ".."), variable("secretKeyRef", "..x")]
    status, answer = await api("POST", PODS, wrong)
    assert status == 422
    assert {cause["field"] for cause in answer["details"]["causes"]} == {
        "spec.volumes[0].configMap.items[0].path",
        "spec.volumes[0].configMap.items[1].path",
        "spec.volumes[0].configMap.items[2].path",
        "spec.volumes[0].configMap.items[3].path",
        "spec.volumes[1].projected.sources[0].secret.items[0].path",
        "spec.containers[0].env[0].valueFrom.configMapKeyRef.key",
        "spec.containers[0].env[1].valueFrom.secretKeyRef.key",
    }


async def test_causes_name_every_field(api: Api) -> None:
    wrong = {
        "metadata": {"name": "p"},
        "spec": {
            "restartPolicy": "Sometimes",
            "containers": [
                {"name": "c", "image": "", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}},
                {"name": "c", "image": "x", "volumeMounts": [{"name": "none", "mountPath": "/x"}]},
            ],
            "tolerations": [{"operator": "Equal"}],
            "terminationGracePeriodSeconds": -1,
        },
    }
    status, answer = await api("POST", PODS, wrong)
    assert status == 422
    assert {cause["field"] for cause in answer["details"]["causes"]} == {
        "spec.containers[0].image",
        "spec.containers[0].resources.requests",
        "spec.containers[1].name",
        "spec.containers[1].volumeMounts[0].name",
        "spec.restartPolicy",
        "spec.terminationGracePeriodSeconds",
        "spec.tolerations[0].operator",
    }
    assert answer["message"].startswith('Pod "p" is invalid: [')


async def test_bodies_are_bounded_and_of_a_kind_that_is_read(api: Api) -> None:
    status, answer = await api("POST", MAPS, b" " * (3 * 2**20 + 1))
    assert (status, answer["reason"]) == (413, "RequestEntityTooLarge")
    status, answer = await api("POST", MAPS, b"k8s\0", media="application/vnd.kubernetes.protobuf")
    assert status == 415
    assert "use kubectl apply" in answer["message"]
    made = await api.ok("POST", MAPS, b"metadata: {name: y}\ndata: {a: b}", media="application/yaml")
    assert made["data"] == {"a": "b"}
    status, answer = await api("POST", MAPS, b"a: &x [1]\nb: *x", media="application/yaml")
    assert (status, answer["reason"]) == (400, "BadRequest")


async def test_updates_are_optimistic(api: Api) -> None:
    made = await api.ok("POST", MAPS, config(a="1"))
    first = await api.ok("PUT", f"{MAPS}/x", {**made, "data": {"a": "2"}})
    status, answer = await api("PUT", f"{MAPS}/x", {**made, "data": {"a": "3"}})
    assert (status, answer["reason"], answer["details"]["name"]) == (409, "Conflict", "x")
    assert (await api.ok("PUT", f"{MAPS}/x", config(a="4")))["data"] == {"a": "4"}
    stale = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"a": "5"}}
    assert (await api("PATCH", f"{MAPS}/x", stale, media=MERGE))[0] == 409
    other = {**made, "metadata": {"name": "x", "uid": "00000000-0000-0000-0000-000000000000"}}
    assert (await api("PUT", f"{MAPS}/x", other))[0] == 409
    kept = await api.ok("GET", f"{MAPS}/x")
    assert kept["metadata"]["uid"] == made["metadata"]["uid"]
    assert kept["metadata"]["creationTimestamp"] == made["metadata"]["creationTimestamp"]


async def test_a_lease_is_only_replaced_by_who_knows_it(api: Api) -> None:
    lease = {"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40}}
    made = await api.ok("PUT", f"{LEASES}/n1", lease)
    assert made["metadata"]["uid"]
    status, answer = await api("PUT", f"{LEASES}/n1", lease)
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "metadata.resourceVersion")
    made["spec"]["holderIdentity"] = "n2"
    assert (await api.ok("PUT", f"{LEASES}/n1", made))["spec"]["holderIdentity"] == "n2"


async def test_status_and_the_rest_are_written_apart(api: Api) -> None:
    await api.ok("POST", PODS, {**pod(), "status": {"phase": "Running"}})
    made = await api.ok("GET", f"{PODS}/p")
    assert made["status"]["phase"] == "Pending"
    changed = await api.ok("PATCH", f"{PODS}/p", {"status": {"phase": "Running"}}, media=MERGE)
    assert changed["status"]["phase"] == "Pending"
    patch = {"spec": {"nodeName": "n1"}, "status": {"phase": "Running", "qosClass": "Guaranteed"}}
    changed = await api.ok("PATCH", f"{PODS}/p/status", patch, media=MERGE)
    assert changed["status"]["phase"] == "Running"
    assert changed["status"]["qosClass"] == "BestEffort"
    assert "nodeName" not in changed["spec"]
    assert changed["metadata"]["generation"] == 1
    await api.ok("POST", "/api/v1/nodes", node("n1"))
    changed = await api.ok("PUT", "/api/v1/nodes/n1", {"metadata": {"name": "n1"}, "spec": {"unschedulable": True}})
    assert changed["status"]["capacity"]["cpu"] == "4"


async def test_a_status_meant_for_a_predecessor_is_refused(api: Api) -> None:
    old = await api.ok("POST", PODS, pod())
    await api.ok("DELETE", f"{PODS}/p")
    await api.ok("POST", PODS, pod())
    patch = {"metadata": {"uid": old["metadata"]["uid"]}, "status": {"phase": "Failed"}}
    status, answer = await api("PATCH", f"{PODS}/p/status", patch, media=STRATEGIC)
    assert (status, answer["reason"]) == (409, "Conflict")
    assert "UID in precondition" in answer["message"]


async def test_finalizers_hold_an_object(api: Api) -> None:
    await api.ok("POST", MAPS, {**config(), "metadata": {"name": "x", "finalizers": ["example.com/a"]}})
    left = await api.ok("DELETE", f"{MAPS}/x")
    assert left["metadata"]["deletionTimestamp"]
    patch = {"metadata": {"finalizers": ["example.com/a", "example.com/b"]}}
    assert (await api("PATCH", f"{MAPS}/x", patch, media=MERGE))[0] == 422
    await api.ok("PATCH", f"{MAPS}/x", {"data": {"a": "b"}}, media=MERGE)
    await api.ok("PATCH", f"{MAPS}/x", {"metadata": {"finalizers": None}}, media=MERGE)
    assert (await api("GET", f"{MAPS}/x"))[0] == 404


async def test_nothing_is_made_in_a_namespace_that_goes(api: Api) -> None:
    """Clients know it by its cause."""
    spaces = "/api/v1/namespaces"
    await api.ok("POST", spaces, {"metadata": {"name": "going"}})
    held = {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    await api.ok("POST", f"{spaces}/going/configmaps", held)
    await api.ok("DELETE", f"{spaces}/going")
    code, answer = await api("POST", f"{spaces}/going/configmaps", {"metadata": {"name": "late"}})
    why = "unable to create new content in namespace going because it is being terminated"
    assert (code, answer["message"]) == (403, f'configmaps "late" is forbidden: {why}')
    (cause,) = answer["details"]["causes"]
    assert (cause["reason"], cause["field"]) == ("NamespaceTerminating", "metadata.namespace")
    await api.ok("PATCH", f"{spaces}/going/configmaps/held", {"metadata": {"finalizers": None}}, media=MERGE)
    assert (await api("GET", f"{spaces}/going"))[0] == 404


async def test_a_collection_is_deleted_by_selector(api: Api) -> None:
    for name in ("a", "b"):
        await api.ok("POST", MAPS, {"metadata": {"name": name, "labels": {"which": name}}})
    gone = await api.ok("DELETE", f"{MAPS}?labelSelector=which%3Da")
    assert [item["metadata"]["name"] for item in gone["items"]] == ["a"]
    left = await api.ok("GET", MAPS)
    assert [item["metadata"]["name"] for item in left["items"]] == ["b", "kube-root-ca.crt"]


async def test_immutable_data_stays(api: Api) -> None:
    await api.ok("POST", MAPS, {**config(a="1"), "immutable": True})
    status, answer = await api("PATCH", f"{MAPS}/x", {"data": {"a": "2"}}, media=MERGE)
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "data")


async def test_a_json_patch_that_does_not_fit(api: Api) -> None:
    await api.ok("POST", MAPS, config(a="1"))
    test = [{"op": "test", "path": "/data/a", "value": "2"}, {"op": "remove", "path": "/data/a"}]
    status, answer = await api("PATCH", f"{MAPS}/x", test, media=JSON_PATCH)
    assert (status, answer["reason"]) == (422, "Invalid")
    assert (await api("PATCH", f"{MAPS}/x", {"op": "test"}, media=JSON_PATCH))[0] == 400
    assert (await api.ok("GET", f"{MAPS}/x"))["data"] == {"a": "1"}


async def test_apply_takes_away_what_its_manager_no_longer_wants(api: Api) -> None:
    def apply(manager: str, body: dict[str, Any], force: bool = False) -> Any:
        query = f"fieldManager={manager}" + ("&force=true" if force else "")
        return api("PATCH", f"{MAPS}/x?{query}", {**config(), **body}, media=APPLY)

    status, made = await apply("one", {"data": {"a": "1", "b": "2"}})
    assert status == 201
    assert made["metadata"]["managedFields"][0]["fieldsV1"] == {"f:data": {"f:a": {}, "f:b": {}}}
    assert (await apply("two", {"data": {"b": "2", "c": "3"}}))[0] == 200
    status, changed = await apply("one", {"data": {"a": "1"}})
    assert changed["data"] == {"a": "1", "b": "2", "c": "3"}
    status, changed = await apply("two", {"data": {"c": "3"}})
    assert changed["data"] == {"a": "1", "c": "3"}
    status, answer = await apply("two", {"data": {"a": "9", "c": "3"}})
    assert status == 409
    assert answer["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one" using v1', "field": ".data.a"}
    ]
    status, changed = await apply("two", {"data": {"a": "9", "c": "3"}}, force=True)
    assert changed["data"] == {"a": "9", "c": "3"}
    status, changed = await apply("one", {"data": {}})
    assert changed["data"] == {"a": "9", "c": "3"}
    await api.ok("PATCH", f"{MAPS}/x?fieldManager=hand", {"data": {"c": "5"}}, media=MERGE)
    status, answer = await apply("two", {"data": {"a": "9", "c": "3"}})
    assert (status, answer["details"]["causes"][0]["message"]) == (409, 'conflict with "hand" using v1')
    assert (await api("PATCH", f"{MAPS}/x", config(), media=APPLY))[0] == 400


async def test_apply_meets_an_object_that_nobody_applied(api: Api) -> None:
    await api.ok("POST", PODS, pod())
    config = pod()
    config["metadata"]["labels"] = {"a": "b"}
    changed = await api.ok("PATCH", f"{PODS}/p?fieldManager=one", config, media=APPLY)
    assert changed["metadata"]["labels"] == {"a": "b"}
    assert [item["name"] for item in changed["spec"]["containers"]] == ["c"]
    assert [entry["manager"] for entry in changed["metadata"]["managedFields"]] == ["before-first-apply", "one"]
    config["spec"]["containers"][0]["image"] = "img:2"
    status, answer = await api("PATCH", f"{PODS}/p?fieldManager=one", config, media=APPLY)
    assert (status, answer["details"]["causes"][0]["field"]) == (409, '.spec.containers[name="c"].image')
    changed = await api.ok("PATCH", f"{PODS}/p?fieldManager=one&force=true", config, media=APPLY)
    assert changed["spec"]["containers"][0]["image"] == "img:2"


async def test_events_have_two_faces(api: Api) -> None:
    newer = {
        "metadata": {"name": "e"},
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "note": "it happened",
        "reason": "Happened",
        "type": "Normal",
        "reportingController": "wasmlet",
        "eventTime": "2026-01-01T00:00:00.000000Z",
    }
    path = "/apis/events.k8s.io/v1/namespaces/default/events"
    made = await api.ok("POST", path, newer)
    assert (made["apiVersion"], made["note"]) == ("events.k8s.io/v1", "it happened")
    core = await api.ok("GET", "/api/v1/namespaces/default/events/e")
    assert (core["apiVersion"], core["message"], core["involvedObject"]["name"]) == ("v1", "it happened", "p")
    patch = {"count": 2}
    await api.ok("PATCH", "/api/v1/namespaces/default/events/e", patch, media=STRATEGIC)
    assert (await api.ok("GET", f"{path}?fieldSelector=regarding.name%3Dp"))["items"][0]["deprecatedCount"] == 2
    listed = await api.ok("GET", "/api/v1/events?fieldSelector=involvedObject.name%3Dp,reason%3DHappened")
    assert len(listed["items"]) == 1
    assert (await api.ok("GET", "/api/v1/events?fieldSelector=involvedObject.kind%3DNode"))["items"] == []
