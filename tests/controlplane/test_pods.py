"""Pods as the API server keeps them: what it fills in, what may change, how they go."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.controlplane.client import MERGE, PODS, STRATEGIC, Api, pod
from wasmlet.controlplane.objects.defaults import qos_class
from wasmlet.model.pod import MOST_GRACE_SECONDS


async def test_defaults(api: Api) -> None:
    made = await api.ok("POST", PODS, pod())
    spec = made["spec"]
    assert {key: spec[key] for key in spec if key not in ("containers", "volumes", "tolerations")} == {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "enableServiceLinks": True,
        "securityContext": {},
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "priority": 0,
        "preemptionPolicy": "PreemptLowerPriority",
    }
    container = spec["containers"][0]
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["terminationMessagePath"] == "/dev/termination-log"
    assert container["terminationMessagePolicy"] == "File"
    assert [item["key"] for item in spec["tolerations"]] == [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]
    assert made["metadata"]["generation"] == 1
    assert (made["status"]["phase"], made["status"]["qosClass"]) == ("Pending", "BestEffort")
    token = spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]
    assert token == {"expirationSeconds": 3607, "path": "token"}
    assert container["volumeMounts"][0]["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("x", "Always"),
        ("x:latest", "Always"),
        ("x:1", "IfNotPresent"),
        ("reg:5000/x", "Always"),
        ("reg:5000/x:1", "IfNotPresent"),
        ("x@sha256:0", "IfNotPresent"),
    ],
)
async def test_the_pull_policy_follows_the_tag(api: Api, image: str, policy: str) -> None:
    made = await api.ok("POST", PODS, pod(containers=[{"name": "c", "image": image}]))
    assert made["spec"]["containers"][0]["imagePullPolicy"] == policy


@pytest.mark.parametrize(
    ("resources", "quality"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
    ],
)
def test_quality_of_service(resources: dict[str, Any], quality: str) -> None:
    assert qos_class({"containers": [{"name": "c", "resources": resources}]}) == quality


async def test_what_may_change(api: Api) -> None:
    made = await api.ok("POST", PODS, pod(automountServiceAccountToken=False))

    async def change(spec: dict[str, Any]) -> tuple[int, Any]:
        return await api("PATCH", f"{PODS}/p", {"spec": spec}, media=STRATEGIC)

    status, changed = await change({"containers": [{"name": "c", "image": "img:2"}]})
    assert (status, changed["metadata"]["generation"]) == (200, 2)
    assert (await change({"activeDeadlineSeconds": 60}))[0] == 200
    assert (await change({"activeDeadlineSeconds": 90}))[0] == 422
    more = [*made["spec"]["tolerations"], {"key": "a", "operator": "Exists"}]
    assert (await change({"tolerations": more}))[0] == 200
    assert (await change({"tolerations": more[:1]}))[0] == 422
    for spec in (
        {"nodeName": "n1"},
        {"containers": [{"name": "c", "args": ["x"]}]},
        {"containers": [{"name": "d", "image": "img:1"}]},
        {"containers": [{"name": "c", "image": ""}]},
        {"terminationGracePeriodSeconds": 1},
        {"restartPolicy": "Never"},
    ):
        status, answer = await change(spec)
        assert (status, answer["reason"]) == (422, "Invalid"), spec
    assert (await api.ok("GET", f"{PODS}/p"))["metadata"]["generation"] == 4


async def runtime_class(api: Api, **fields: Any) -> None:
    body = {"metadata": {"name": "wasm"}, "handler": "wasmlet", **fields}
    await api.ok("POST", "/apis/node.k8s.io/v1/runtimeclasses", body)


async def test_a_runtime_class_completes_the_pod(api: Api) -> None:
    toleration = {"key": "wasmlet.dev/provider", "operator": "Exists", "effect": "NoSchedule"}
    scheduling = {"nodeSelector": {"kubernetes.io/os": "wasi"}, "tolerations": [toleration]}
    await runtime_class(api, overhead={"podFixed": {"memory": "10Mi"}}, scheduling=scheduling)
    made = await api.ok("POST", PODS, pod(runtimeClassName="wasm", nodeSelector={"a": "b"}))
    assert made["spec"]["overhead"] == {"memory": "10Mi"}
    assert made["spec"]["nodeSelector"] == {"a": "b", "kubernetes.io/os": "wasi"}
    assert toleration in made["spec"]["tolerations"]
    for spec in (
        {"runtimeClassName": "none"},
        {"runtimeClassName": "wasm", "nodeSelector": {"kubernetes.io/os": "linux"}},
        {"runtimeClassName": "wasm", "overhead": {"memory": "1Mi"}},
        {"overhead": {"memory": "1Mi"}},
        {"serviceAccountName": "none"},
        {"priorityClassName": "none"},
    ):
        status, answer = await api("POST", PODS, pod("q", **spec))
        assert (status, answer["reason"]) == (403, "Forbidden"), spec
    made = await api.ok("POST", PODS, pod("q", priorityClassName="system-node-critical"))
    assert made["spec"]["priority"] == 2_000_001_000


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_graceful_deletion(api: Api) -> None:
    await api.ok("POST", PODS, pod(nodeName="n1"))
    first = (await api.ok("DELETE", f"{PODS}/p"))["metadata"]
    assert (first["deletionGracePeriodSeconds"], first["generation"]) == (30, 2)
    again = (await api.ok("DELETE", f"{PODS}/p"))["metadata"]
    longer = (await api.ok("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 60}))["metadata"]
    assert first == again == longer
    shorter = (await api.ok("DELETE", f"{PODS}/p?gracePeriodSeconds=5"))["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 5
    difference = moment(first["deletionTimestamp"]) - moment(shorter["deletionTimestamp"])
    assert difference == timedelta(seconds=25)
    wrong = {"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}}
    assert (await api("DELETE", f"{PODS}/p", wrong))[0] == 409
    right = {"gracePeriodSeconds": 0, "preconditions": {"uid": first["uid"]}}
    last = await api.ok("DELETE", f"{PODS}/p", right)
    assert (last["kind"], last["metadata"]["uid"]) == ("Pod", first["uid"])
    assert (await api("GET", f"{PODS}/p"))[0] == 404


async def test_a_grace_period_beyond_the_year_9999_is_cut(api: Api) -> None:
    await api.ok("POST", PODS, pod(nodeName="n1", terminationGracePeriodSeconds=2**60))
    first = (await api.ok("DELETE", f"{PODS}/p"))["metadata"]
    longer = (await api.ok("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 2**60}))["metadata"]
    assert first == longer
    assert first["deletionGracePeriodSeconds"] == MOST_GRACE_SECONDS
    await api.ok("DELETE", f"{PODS}/p?gracePeriodSeconds=0")
    assert (await api("GET", f"{PODS}/p"))[0] == 404


async def test_a_pod_that_runs_nowhere_or_is_finished_goes_at_once(api: Api) -> None:
    await api.ok("POST", PODS, pod())
    await api.ok("DELETE", f"{PODS}/p")
    assert (await api("GET", f"{PODS}/p"))[0] == 404
    await api.ok("POST", PODS, pod(nodeName="n1"))
    await api.ok("PATCH", f"{PODS}/p/status", {"status": {"phase": "Succeeded"}}, media=MERGE)
    await api.ok("DELETE", f"{PODS}/p")
    assert (await api("GET", f"{PODS}/p"))[0] == 404


@pytest.mark.parametrize(("spec", "phase"), [({}, "Pending"), ({"nodeName": "n1"}, "Running"), ({}, "Succeeded")])
async def test_watches_see_that_the_time_of_a_pod_is_up_before_it_is_gone(
    api: Api, spec: dict[str, Any], phase: str
) -> None:
    """As those of a cluster: a node has to take that change for nothing new."""
    await api.ok("POST", PODS, pod(**spec))
    await api.ok("PATCH", f"{PODS}/p/status", {"status": {"phase": phase}}, media=MERGE)
    start = (await api.ok("GET", PODS))["metadata"]["resourceVersion"]
    await api.ok("DELETE", f"{PODS}/p?gracePeriodSeconds=0")
    async with api.watch(PODS, resourceVersion=start) as lines:
        changed, gone = await lines.next(), await lines.next()
    assert (changed["type"], gone["type"]) == ("MODIFIED", "DELETED")
    before, after = changed["object"]["metadata"], gone["object"]["metadata"]
    assert before["deletionGracePeriodSeconds"] == after["deletionGracePeriodSeconds"] == 0
    assert before["deletionTimestamp"] == after["deletionTimestamp"]
    assert int(before["resourceVersion"]) < int(after["resourceVersion"])


async def test_an_eviction_deletes(api: Api) -> None:
    await api.ok("POST", PODS, pod(nodeName="n1"))
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    done = await api.ok("POST", f"{PODS}/p/eviction", eviction)
    assert done["status"] == "Success"
    assert (await api.ok("GET", f"{PODS}/p"))["metadata"]["deletionGracePeriodSeconds"] == 30


async def test_a_pod_is_bound_once(api: Api) -> None:
    await api.ok("POST", PODS, pod(schedulerName="mine"))
    binding = {"metadata": {"name": "p", "annotations": {"a": "b"}}, "target": {"name": "n1"}}
    await api.ok("POST", f"{PODS}/p/binding", binding)
    bound = await api.ok("GET", f"{PODS}/p")
    assert (bound["spec"]["nodeName"], bound["metadata"]["annotations"]) == ("n1", {"a": "b"})
    assert bound["status"]["conditions"][0]["type"] == "PodScheduled"
    assert bound["metadata"]["generation"] == 1
    assert (await api("POST", f"{PODS}/p/binding", binding))[0] == 409


def terminated(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code}}


@pytest.mark.parametrize(
    ("policy", "before", "after", "code"),
    [
        ("Always", terminated(0), {"running": {}}, 200),
        ("OnFailure", terminated(1), {"running": {}}, 200),
        ("OnFailure", terminated(0), {"running": {}}, 422),
        ("Never", terminated(1), {"waiting": {}}, 422),
        ("Never", terminated(1), terminated(1), 200),
        ("Never", {"running": {}}, {"waiting": {}}, 200),
    ],
)
async def test_a_container_that_ended_stays_ended(
    api: Api, policy: str, before: dict[str, Any], after: dict[str, Any], code: int
) -> None:
    await api.ok("POST", PODS, pod(nodeName="n1", restartPolicy=policy))

    async def say(state: dict[str, Any]) -> int:
        status = {"phase": "Running", "containerStatuses": [{"name": "c", "state": state}]}
        return (await api("PATCH", f"{PODS}/p/status", {"status": status}, media=STRATEGIC))[0]

    assert await say(before) == 200
    assert await say(after) == code


async def test_a_finished_pod_stays_finished(api: Api) -> None:
    await api.ok("POST", PODS, pod(nodeName="n1"))
    await api.ok("PATCH", f"{PODS}/p/status", {"status": {"phase": "Failed"}}, media=STRATEGIC)
    status, answer = await api("PATCH", f"{PODS}/p/status", {"status": {"phase": "Running"}}, media=STRATEGIC)
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "status.phase")
    assert (await api("PATCH", f"{PODS}/p/status", {"status": {"phase": "Odd"}}, media=STRATEGIC))[0] == 422


async def test_conditions_are_merged_by_type(api: Api) -> None:
    await api.ok("POST", PODS, pod(nodeName="n1"))

    async def say(**condition: Any) -> dict[str, dict[str, Any]]:
        patch = {"status": {"conditions": [condition]}}
        changed = await api.ok("PATCH", f"{PODS}/p/status", patch, media=STRATEGIC)
        return {item["type"]: item for item in changed["status"]["conditions"]}

    await say(type="Ready", status="False", observedGeneration=1)
    await say(type="example.com/gate", status="True")
    found = await say(type="Ready", status="True")
    assert found["Ready"] == {"type": "Ready", "status": "True", "observedGeneration": 1}
    assert found["example.com/gate"]["status"] == "True"
