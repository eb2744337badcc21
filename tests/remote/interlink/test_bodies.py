"""What a plugin of interLink is sent: values instead of references, plain config maps, and never null."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from wasmlet_remote.interlink.bodies import create_body, pod_body

from tests.remote.interlink.plugin import problems
from wasmlet import Inputs, Pod, Refused
from wasmlet.errors import MissingReference
from wasmlet.model.inputs import TokenKey

BLOB = base64.b64encode(b"\xff").decode()
SECRET = base64.b64encode(b"hunter2").decode()
INPUTS = Inputs(
    config_maps={
        "settings": {"data": {"colour": "blue", "size": "9"}, "binaryData": {"blob": BLOB}},
        "bytes": {"binaryData": {"blob": BLOB}},
    },
    secrets={"login": {"data": {"password": SECRET}}},
    tokens={TokenKey("vault", 3600): "t0ken"},
    node_name="hpc",
)  # fmt: skip


def a_pod(*, container: dict[str, Any] | None = None, **spec: Any) -> Pod:
    main = {"name": "main", "image": "registry.example/tool:v2"} | (container or {})
    metadata = {"name": "p", "namespace": "team", "uid": "u-1", "managedFields": [{"manager": "x"}]}
    return Pod({"metadata": metadata, "spec": {"containers": [main], "restartPolicy": "Never", **spec}})


def sent(pod: Pod) -> dict[str, Any]:
    """The body of `/create`, which the SDK takes."""
    body = create_body(pod, INPUTS)
    assert problems("Pod", body) == []
    return body


def test_variables_are_values_and_are_expanded_in_the_command() -> None:
    env = [
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}},
        {"name": "BOTH", "value": "$(PASSWORD) on $(colour)"},
        {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "x", "optional": True}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    ]
    container = {
        "env": env,
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "command": ["tool", "$(colour)", "$(unknown)"],
        "args": ["$$(colour)"],
        "resources": {"limits": {"cpu": "3"}},
    }
    pod = a_pod(container=container)
    raw = Pod({**pod.raw, "spec": {**pod.spec, "nodeName": "hpc"}})
    found = sent(raw)["pod"]["spec"]["containers"][0]
    assert "envFrom" not in found
    assert {e["name"]: e["value"] for e in found["env"]} == {
        "colour": "blue", "size": "9", "NODE": "hpc", "PASSWORD": "hunter2", "BOTH": "hunter2 on blue", "CPU": "3",
    }  # fmt: skip
    assert (found["command"], found["args"]) == (["tool", "blue", "$(unknown)"], ["$(colour)"])


def test_an_image_is_sent_whole_and_lists_are_never_left_out() -> None:
    body = sent(a_pod())
    found = body["pod"]["spec"]["containers"][0]
    assert found["image"] == "registry.example/tool:v2"
    assert "tag" not in found
    assert (found["command"], found["args"], found["env"]) == ([], [], [])
    assert body["container"] == [
        {"name": "main", "configMaps": [], "secrets": [], "projectedvolumemaps": [], "emptyDirs": []}
    ]
    assert "managedFields" not in body["pod"]["metadata"]


def test_requests_become_limits_where_there_are_none() -> None:
    resources = {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "4"}}
    found = sent(a_pod(container={"resources": resources}))["pod"]["spec"]["containers"][0]
    assert found["resources"]["limits"] == {"cpu": "4", "memory": "1Gi"}
    assert found["resources"]["requests"] == resources["requests"]


def test_volumes_have_their_files_by_path() -> None:
    volumes = [
        {"name": "all", "configMap": {"name": "settings"}},
        {"name": "one", "configMap": {"name": "settings", "items": [{"key": "colour", "path": "c.txt"}]}},
        {"name": "raw", "configMap": {"name": "bytes", "defaultMode": 0o400}},
        {"name": "login", "secret": {"secretName": "login"}},
        {"name": "maybe", "secret": {"secretName": "absent", "optional": True}},
        {
            "name": "token",
            "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "vault"}}]},
        },
        {
            "name": "about",
            "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]},
        },
        {"name": "scratch", "emptyDir": {}},
        {"name": "idle", "emptyDir": {}},
    ]
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes if v["name"] != "idle"]
    body = sent(a_pod(container={"volumeMounts": mounts}, volumes=volumes))
    (content,) = body["container"]
    maps = {entry["metadata"]["name"]: entry for entry in content["configMaps"]}
    assert maps["settings-all"]["data"] == {"colour": "blue", "size": "9"}
    assert maps["settings-one"]["data"] == {"c.txt": "blue"}
    assert maps["bytes"]["data"] == {}
    assert maps["bytes"]["binaryData"] == {"blob": "/w=="}
    assert [entry["data"] for entry in content["secrets"]] == [{"password": SECRET}, {}]
    assert {entry["metadata"]["name"]: entry["data"] for entry in content["projectedvolumemaps"]} == {
        "token": {"token": "t0ken"}, "about": {"name": "p"},
    }  # fmt: skip
    assert content["emptyDirs"] == ["scratch"]
    told = {volume.pop("name"): volume for volume in body["pod"]["spec"]["volumes"]}
    assert told["one"] == {"configMap": {"name": "settings-one"}}
    assert told["raw"] == {"configMap": {"name": "bytes", "defaultMode": 0o400}}
    assert told["about"] == told["token"] == {"projected": {"sources": []}}


def test_init_containers_come_along() -> None:
    body = sent(a_pod(initContainers=[{"name": "first", "image": "tool"}]))
    assert [c["name"] for c in body["pod"]["spec"]["initContainers"]] == ["first"]
    assert [c["name"] for c in body["container"]] == ["main", "first"]


@pytest.mark.parametrize("kind", ["hostPath", "persistentVolumeClaim", "nfs", "csi"])
def test_a_volume_that_a_plugin_cannot_be_told_of_is_refused_by_name(kind: str) -> None:
    with pytest.raises(Refused, match=rf"spec\.volumes\[0\]\.{kind}"):
        create_body(a_pod(volumes=[{"name": "v", kind: {"path": "/x"}}]), INPUTS)


def test_a_missing_object_is_named() -> None:
    env = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k"}}}]
    with pytest.raises(MissingReference, match="gone"):
        create_body(a_pod(container={"env": env}), INPUTS)


def test_a_variable_that_is_no_text_is_refused_without_its_value() -> None:
    inputs = Inputs(secrets={"s": {"data": {"k": base64.b64encode(b"\xff\xfe").decode()}}})
    env = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    with pytest.raises(Refused, match="X: a plugin takes text only"):
        create_body(a_pod(container={"env": env}), inputs)


def test_what_status_and_delete_are_told_has_no_values() -> None:
    env = [{"name": "X", "value": "hunter2"}]
    pod = a_pod(container={"env": env, "volumeMounts": [{"name": "v", "mountPath": "/v"}]})
    body = pod_body(pod)
    assert problems("PodRequest", body) == []
    assert "hunter2" not in str(body)
    assert body["spec"]["containers"] == [{"name": "main", "image": "registry.example/tool:v2"}]
