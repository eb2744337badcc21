"""Real kubectl against the embedded control plane: what a user of the demo and of a test types."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane.client import PODS, STRATEGIC, Api, Kubectl, node, pod
from tests.controlplane.test_protobuf import envelope
from wasmlet.controlplane.http import protobuf

RUNNING = {
    "phase": "Running",
    "podIP": "10.1.2.3",
    "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
    "containerStatuses": [
        {
            "name": "c",
            "image": "img:1",
            "imageID": "",
            "ready": True,
            "restartCount": 2,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z"}},
        }
    ],
}


@pytest.fixture
async def running(api: Api) -> str:
    """A pod that runs on a node."""
    await api.ok("POST", "/api/v1/nodes", node("n1"))
    await api.ok("POST", PODS, pod(nodeName="n1", automountServiceAccountToken=False))
    await api.ok("PATCH", f"{PODS}/p/status", {"status": RUNNING}, media=STRATEGIC)
    return "p"


async def test_a_wrong_field_is_refused_by_name(kube: Kubectl) -> None:
    wrong = pod()
    wrong["spec"]["containers"][0]["imagePolicy"] = "Always"
    code, _, err = await kube.run("apply", "-f", "-", stdin=wrong)
    assert code != 0
    assert 'unknown field "spec.containers[0].imagePolicy"' in err
    wrong["spec"]["containers"][0] = {"name": "c", "image": ["img"]}
    code, _, err = await kube.run("apply", "-f", "-", stdin=wrong)
    assert code != 0
    assert "spec.containers[0].image" in err
    assert "No resources" in (await kube.run("get", "pods"))[2]


async def test_a_wrong_field_warns_where_a_warning_is_asked_for(kube: Kubectl) -> None:
    code, out, err = await kube.run("apply", "--validate=warn", "-f", "-", stdin=pod(colour="red"))
    assert (code, out) == (0, "pod/p created\n")
    assert 'Warning: unknown field "spec.colour"' in err


async def test_apply_creates_changes_and_leaves_alone(kube: Kubectl) -> None:
    assert await kube("apply", "-f", "-", stdin=pod()) == "pod/p created\n"
    assert await kube("apply", "-f", "-", stdin=pod()) == "pod/p unchanged\n"
    changed = pod()
    changed["spec"]["containers"][0]["image"] = "img:2"
    changed["metadata"]["labels"] = {"app": "x"}
    assert await kube("apply", "-f", "-", stdin=changed) == "pod/p configured\n"
    found = json.loads(await kube("get", "pod", "p", "-o", "json"))
    assert found["spec"]["containers"][0]["image"] == "img:2"
    assert found["metadata"]["generation"] == 2
    assert await kube("apply", "-f", "-", stdin=pod()) == "pod/p configured\n"
    found = json.loads(await kube("get", "pod", "p", "-o", "json"))
    assert "labels" not in found["metadata"]
    code, _, err = await kube.run("apply", "-f", "-", stdin=pod(hostNetwork=True))
    assert code != 0
    assert "spec: Forbidden" in err


async def test_dry_run_changes_nothing(kube: Kubectl) -> None:
    assert "created (server dry run)" in await kube("apply", "--dry-run=server", "-f", "-", stdin=pod())
    assert "No resources" in (await kube.run("get", "pods"))[2]


async def test_get_shows_the_usual_columns(kube: Kubectl, running: str) -> None:
    head, line = (await kube("get", "pods", "-o", "wide")).splitlines()
    columns = ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"]
    assert head.split() == " ".join(columns).split()
    cells = line.split()
    assert cells[:4] == ["p", "1/1", "Running", "2"]
    assert cells[-4:] == ["10.1.2.3", "n1", "<none>", "<none>"]
    assert "ago)" in line
    head, line = (await kube("get", "nodes")).splitlines()
    assert head.split() == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert line.split()[:3] == ["n1", "Ready", "<none>"]
    assert "pod/p" in await kube("get", "all")
    assert "service/kubernetes" in await kube("get", "all", "--all-namespaces")
    assert "phase: Running" in await kube("get", "po", "p", "-o", "yaml")
    assert await kube("get", "pods", "-o", "jsonpath={.items[*].metadata.name}") == "p"
    assert await kube("get", "pods", "-o", "name", "--field-selector", "spec.nodeName=n1") == "pod/p\n"
    assert await kube("get", "pods", "-o", "custom-columns=N:.spec.nodeName", "--no-headers") == "n1\n"


async def test_get_follows_changes(kube: Kubectl, api: Api, running: str) -> None:
    process = await kube.start("get", "pods", "-w", "--no-headers")
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert (await process.stdout.readline()).split()[2] == b"Running"
            status = {"status": {"phase": "Failed", "reason": "Evicted", "containerStatuses": []}}
            await api.ok("PATCH", f"{PODS}/p/status", status, media=STRATEGIC)
            assert (await process.stdout.readline()).split()[2] == b"Evicted"
    finally:
        process.terminate()
        await process.communicate()


async def test_describe(kube: Kubectl, running: str) -> None:
    text = await kube("describe", "pod", "p")
    assert "Node:             n1/" in text
    assert "Restart Count:  2" in text
    assert "Successfully assigned" not in text
    text = await kube("describe", "node", "n1")
    assert "Non-terminated Pods:" in text
    assert "InternalIP:  127.0.0.1" in text


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("pod.spec.containers", ["FIELDS:", "imagePullPolicy", "<[]Container>", "-required-"]),
        ("pod.spec.containers.image", ["FIELD: image <string>", "ontainer image name"]),
        ("runtimeclass", ["GROUP:      node.k8s.io", "handler"]),
        ("lease.spec.holderIdentity", ["holderIdentity <string>"]),
    ],
)
async def test_explain(kube: Kubectl, path: str, words: list[str]) -> None:
    text = await kube("explain", path)
    for word in words:
        assert word in text


async def test_labels_and_annotations(kube: Kubectl) -> None:
    await kube("apply", "-f", "-", stdin=pod())
    await kube("label", "pod", "p", "a=b", "c=d")
    await kube("annotate", "pod", "p", "note=x")
    assert await kube("get", "pods", "-l", "a in (b,c),!e", "-o", "name") == "pod/p\n"
    assert await kube("get", "pods", "-l", "a!=b", "-o", "name") == ""
    await kube("label", "pod", "p", "a-")
    meta = json.loads(await kube("get", "pod", "p", "-o", "json"))["metadata"]
    assert meta["labels"] == {"c": "d"}
    assert meta["annotations"]["note"] == "x"
    code, _, err = await kube.run("label", "pod", "p", "a=white space")
    assert code != 0
    assert "a valid label must be" in err


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        ("strategic", {"spec": {"containers": [{"name": "c", "image": "img:2"}]}}),
        ("merge", {"spec": {"activeDeadlineSeconds": 60}, "metadata": {"labels": {"a": "b"}}}),
        ("json", [{"op": "replace", "path": "/spec/containers/0/image", "value": "img:2"}]),
    ],
)
async def test_patch(kube: Kubectl, kind: str, patch: Any) -> None:
    await kube("apply", "-f", "-", stdin=pod())
    arguments = ("patch", "pod", "p", f"--type={kind}", "-p", json.dumps(patch))
    assert await kube(*arguments) == "pod/p patched\n"
    assert await kube(*arguments) == "pod/p patched (no change)\n"
    found = json.loads(await kube("get", "pod", "p", "-o", "json"))
    assert found["metadata"]["generation"] == 2
    assert (found["spec"]["containers"][0]["image"], found["spec"].get("activeDeadlineSeconds")) == (
        ("img:1", 60) if kind == "merge" else ("img:2", None)
    )


async def test_server_side_apply(kube: Kubectl) -> None:
    first = pod()
    first["metadata"]["labels"] = {"a": "1", "b": "2"}
    assert "serverside-applied" in await kube("apply", "--server-side", "-f", "-", stdin=first)
    first["metadata"]["labels"] = {"a": "1"}
    await kube("apply", "--server-side", "-f", "-", stdin=first)
    assert json.loads(await kube("get", "pod", "p", "-o", "json"))["metadata"]["labels"] == {"a": "1"}
    first["metadata"]["labels"] = {"a": "other"}
    mine = ("apply", "--server-side", "--field-manager=mine", "-f", "-")
    code, _, err = await kube.run(*mine, stdin=first)
    assert code != 0
    assert "conflict" in err
    assert ".metadata.labels.a" in err
    await kube(*mine, "--force-conflicts", stdin=first)
    assert json.loads(await kube("get", "pod", "p", "-o", "json"))["metadata"]["labels"] == {"a": "other"}


async def test_wait(kube: Kubectl, api: Api, running: str) -> None:
    assert "condition met" in await kube("wait", "--for=condition=Ready", "pod/p", "--timeout=60s")
    assert "condition met" in await kube("wait", "--for=jsonpath={.status.phase}=Running", "pod/p", "--timeout=60s")
    process = await kube.start("wait", "--for=delete", "pod/p", "--timeout=60s")
    await api.ok("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b""), out


async def test_delete_of_a_pod_that_has_no_node_is_done_at_once(kube: Kubectl) -> None:
    await kube("apply", "-f", "-", stdin=pod())
    assert 'pod "p" deleted' in await kube("delete", "pod", "p", "--timeout=60s")


async def test_delete_waits_for_the_node(kube: Kubectl, api: Api, running: str) -> None:
    process = await kube.start("delete", "pod", "p")
    async with api.watch(PODS) as lines:
        event = await lines.next()
        while "deletionTimestamp" not in event["object"]["metadata"]:
            event = await lines.next()
    assert event["object"]["metadata"]["deletionGracePeriodSeconds"] == 30
    assert (await kube("get", "pods", "--no-headers")).split()[2] == "Terminating"
    assert process.returncode is None
    await api.ok(
        "DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0, "preconditions": {"uid": event["object"]["metadata"]["uid"]}}
    )
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b""), out


async def test_delete_by_force_and_with_a_finalizer(kube: Kubectl, running: str) -> None:
    await kube("patch", "pod", "p", "-p", '{"metadata":{"finalizers":["example.com/hold"]}}')
    await kube("delete", "pod", "p", "--grace-period=0", "--force", "--wait=false")
    meta = json.loads(await kube("get", "pod", "p", "-o", "json"))["metadata"]
    assert meta["deletionGracePeriodSeconds"] == 0
    await kube("patch", "pod", "p", "--type=json", "-p", '[{"op":"remove","path":"/metadata/finalizers"}]')
    assert (await kube.run("get", "pod", "p"))[0] == 1


async def test_a_namespace_comes_furnished_and_goes_with_its_contents(kube: Kubectl) -> None:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}
    assert await kube("apply", "-f", "-", stdin=space) == "namespace/team created\n"
    assert "default" in await kube("get", "serviceaccounts", "-n", "team", "-o", "name")
    assert "kube-root-ca.crt" in await kube("get", "cm", "-n", "team", "-o", "name")
    await kube("apply", "-n", "team", "-f", "-", stdin=pod())
    await kube("delete", "namespace", "team", "--timeout=60s")
    assert "team" not in await kube("get", "ns")
    assert "No resources" in (await kube.run("get", "pods", "-A"))[2]


async def test_what_kubectl_creates_from_words_is_what_it_says(kube: Kubectl, tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(bytes(range(256)))
    await kube("create", "namespace", "x")
    await kube("create", "-n", "x", "serviceaccount", "robot")
    await kube("create", "-n", "x", "configmap", "m", "--from-literal=a=b", f"--from-file=raw={binary}")
    await kube("create", "-n", "x", "secret", "generic", "s", "--from-literal=a=b", f"--from-file=raw={binary}")
    raw = base64.b64encode(bytes(range(256))).decode()
    made = json.loads(await kube("get", "-n", "x", "configmap/m", "-o", "json"))
    assert (made["data"], made["binaryData"]) == ({"a": "b"}, {"raw": raw})
    made = json.loads(await kube("get", "-n", "x", "secret/s", "-o", "json"))
    assert (made["data"], made["type"]) == ({"a": "Yg==", "raw": raw}, "Opaque")
    assert "robot" in await kube("get", "-n", "x", "serviceaccounts", "-o", "name")
    await kube(
        "create", "-n", "x", "deployment", "d", "--image=img:1", "--replicas=3", "--port=8080", "--", "run", "it"
    )
    made = json.loads(await kube("get", "-n", "x", "deployment/d", "-o", "json"))["spec"]
    (container,) = made["template"]["spec"]["containers"]
    assert (made["replicas"], made["selector"]) == (3, {"matchLabels": {"app": "d"}})
    assert (container["image"], container["command"]) == ("img:1", ["run", "it"])
    assert container["ports"] == [{"containerPort": 8080, "protocol": "TCP"}]
    await kube("create", "-n", "x", "service", "nodeport", "d", "--tcp=80:8080", "--node-port=30080")
    made = json.loads(await kube("get", "-n", "x", "service/d", "-o", "json"))["spec"]
    assert (made["type"], made["selector"]) == ("NodePort", {"app": "d"})
    port = {"name": "80-8080", "port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 30080}
    assert made["ports"] == [port]


async def test_protobuf_is_refused_with_the_way_out(api: Api) -> None:
    body = envelope("coordination.k8s.io/v1", "Lease", b"")
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    status, answer = await api("POST", path, body, media=protobuf.MEDIA)
    assert (status, "use kubectl apply" in answer["message"]) == (415, True)


async def test_events(kube: Kubectl, api: Api) -> None:
    await kube("apply", "-f", "-", stdin=pod(nodeSelector={"disk": "ssd"}))
    async with api.watch("/api/v1/namespaces/default/events") as lines:
        event = (await lines.next())["object"]
    assert event["reason"] == "FailedScheduling"
    assert "FailedScheduling" in await kube("get", "events")
    assert "FailedScheduling" in await kube("events", "--for", "pod/p")
    assert "FailedScheduling" in await kube("get", "events.v1.events.k8s.io")
    assert "no nodes available" in await kube("describe", "pod", "p")


async def test_other_kinds(kube: Kubectl) -> None:
    things = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"a": "b"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "svc"},
            "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]},
        },
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "wasm"}, "handler": "wasmlet"},
    ]
    listed = {"apiVersion": "v1", "kind": "List", "items": things}
    out = await kube("apply", "-f", "-", stdin=listed)
    assert out.count("created") == 4
    assert (await kube("apply", "-f", "-", stdin=listed)).count("unchanged") >= 3
    assert await kube("get", "secret", "s", "-o", "jsonpath={.data.a}") == "Yg=="
    assert (await kube("get", "cm", "cm", "--no-headers")).split()[:2] == ["cm", "1"]
    assert "80/TCP" in await kube("get", "svc", "svc")
    assert "wasmlet" in await kube("get", "runtimeclass")
    assert "pods" in await kube("api-resources", "--categories=all")


async def test_who_am_i_and_no_debugging_of_nodes(kube: Kubectl, api: Api) -> None:
    assert "system:masters" in await kube("auth", "whoami")
    await api.ok("POST", "/api/v1/nodes", node("n1"))
    code, _, err = await kube.run("debug", "node/n1", "--image=busybox", "--profile=general")
    assert code != 0
    assert "nodes that run WebAssembly have no such pods" in err
