"""StatefulSets, with real kubectl and a stand-in for the kubelet that runs their pods."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.controlplane.client import MERGE, PODS, Api, Kubectl, Object
from tests.controlplane.controllers.test_deployments import images, version
from tests.controlplane.controllers.workloads import APPS, deployment, ready_status, running, template, until

STATEFUL = f"{APPS}/statefulsets"
REVISIONS = f"{APPS}/controllerrevisions"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"


def stateful(name: str = "web", replicas: int = 2, **spec: Any) -> Object:
    return deployment(name, replicas=replicas, **{"serviceName": "peers", **spec}) | {"kind": "StatefulSet"}


def names(found: list[Object]) -> list[str]:
    return [item["metadata"]["name"] for item in found]


async def settled(api: Api, replicas: int, updated: int | None = None) -> Object:
    """Wait until that many pods are available and of the present template; the StatefulSet."""

    def hold(found: list[Object]) -> bool:
        status = found[0].get("status", {})
        counts = [status.get(key, 0) for key in ("replicas", "availableReplicas", "updatedReplicas")]
        current = status.get("observedGeneration") == found[0]["metadata"]["generation"]
        return current and counts == [replicas, replicas, replicas if updated is None else updated]

    return (await until(api, STATEFUL, hold))[0]


async def test_a_pod_has_a_name_that_stays(kube: Kubectl, api: Api) -> None:
    async with running(api):
        assert await kube("apply", "-f", "-", stdin=stateful()) == "statefulset.apps/web created\n"
        assert await kube("apply", "-f", "-", stdin=stateful()) == "statefulset.apps/web unchanged\n"
        found = await settled(api, 2)
        pods = (await api.ok("GET", PODS))["items"]
        assert names(pods) == ["web-0", "web-1"]
        assert [(pod["spec"]["hostname"], pod["spec"]["subdomain"]) for pod in pods] == [
            ("web-0", "peers"),
            ("web-1", "peers"),
        ]
        revision = found["status"]["updateRevision"]
        assert pods[1]["metadata"]["labels"] == {
            "app": "web",
            "apps.kubernetes.io/pod-index": "1",
            "controller-revision-hash": revision,
            "statefulset.kubernetes.io/pod-name": "web-1",
        }
        assert found["status"] == {
            "observedGeneration": 1,
            "replicas": 2,
            "readyReplicas": 2,
            "availableReplicas": 2,
            "currentReplicas": 2,
            "updatedReplicas": 2,
            "currentRevision": revision,
            "updateRevision": revision,
            "collisionCount": 0,
        }
        head, line = (await kube("get", "sts")).splitlines()
        assert (head.split(), line.split()[:2]) == (["NAME", "READY", "AGE"], ["web", "2/2"])
        uid = pods[0]["metadata"]["uid"]
        # kubectl that waits takes the next pod of this name for the one that was deleted, if it comes at once.
        await kube("delete", "pod", "web-0", "--wait=false")
        again = await until(api, PODS, lambda found: len(found) == 2 and found[0]["metadata"]["uid"] != uid)
        assert names(again) == ["web-0", "web-1"]
        await settled(api, 2)
        assert await kube("scale", "sts/web", "--replicas=1") == "statefulset.apps/web scaled\n"
        await settled(api, 1)
        events = await kube("get", "events", "--field-selector=involvedObject.name=web,reason=SuccessfulDelete")
        assert "Delete Pod web-1 in StatefulSet web successful" in events
        await kube("delete", "sts", "web")
        await until(api, PODS, lambda found: not found)
        await until(api, REVISIONS, lambda found: not found)


async def test_pods_come_one_after_the_other_and_go_in_reverse(api: Api) -> None:
    async with running(api, lambda pod: None) as runner:
        await api.ok("POST", STATEFUL, stateful(replicas=3))
        for at in range(3):
            pods = await until(api, PODS, lambda found: bool(found) and bool(found[-1]["spec"].get("nodeName")))
            assert names(pods) == [f"web-{number}" for number in range(at + 1)]
            await runner.say(f"web-{at}", ready_status(f"10.1.0.{at + 1}"))
            if at < 2:
                await until(api, PODS, lambda found, count=at + 2: len(found) == count)
        await settled(api, 3)
        gone: list[str] = []
        async with api.watch(PODS, resourceVersion=str(await version(api))) as lines:
            await api.ok("PATCH", f"{STATEFUL}/web/scale", {"spec": {"replicas": 0}}, media=MERGE)
            while len(gone) < 3:
                event = await lines.next(20)
                if event["type"] == "DELETED":
                    gone.append(event["object"]["metadata"]["name"])
        assert gone == ["web-2", "web-1", "web-0"]


async def test_parallel_pods_wait_for_nobody(api: Api) -> None:
    async with running(api, lambda pod: None):
        await api.ok("POST", STATEFUL, stateful(replicas=3, podManagementPolicy="Parallel"))
        await until(api, PODS, lambda found: names(found) == ["web-0", "web-1", "web-2"])


async def test_a_new_template_rolls_from_the_last_pod_to_the_first(kube: Kubectl, api: Api) -> None:
    async with running(api):
        await api.ok("POST", STATEFUL, stateful(replicas=3))
        before = await settled(api, 3)
        made: list[str] = []
        async with api.watch(PODS, resourceVersion=str(await version(api))) as lines:
            await kube("set", "image", "sts/web", "c=img:2")
            while len(made) < 3:
                event = await lines.next(20)
                if event["type"] == "ADDED":
                    made.append(event["object"]["metadata"]["name"])
        assert made == ["web-2", "web-1", "web-0"]
        assert "roll out complete: 3 new pods have been updated" in await kube("rollout", "status", "sts/web")
        after = await settled(api, 3)
        assert images((await api.ok("GET", PODS))["items"]) == ["img:2"] * 3
        assert after["status"]["currentRevision"] == after["status"]["updateRevision"]
        assert after["status"]["currentRevision"] != before["status"]["currentRevision"]
        history = (await kube("rollout", "history", "sts/web")).splitlines()
        assert [line.split()[0] for line in history[2:] if line] == ["1", "2"]
        await kube("rollout", "undo", "sts/web")
        await kube("rollout", "status", "sts/web")
        assert images((await api.ok("GET", PODS))["items"]) == ["img:1"] * 3
        undone = await settled(api, 3)
        assert undone["status"]["updateRevision"] == before["status"]["updateRevision"]
        history = (await kube("rollout", "history", "sts/web")).splitlines()
        assert [line.split()[0] for line in history[2:] if line] == ["2", "3"]
        await kube("rollout", "restart", "sts/web")
        await kube("rollout", "status", "sts/web")
        await settled(api, 3)
        revisions = (await api.ok("GET", REVISIONS))["items"]
        assert sorted(item["revision"] for item in revisions) == [2, 3, 4]
        lines_ = (await kube("get", "controllerrevisions")).splitlines()
        assert lines_[1].split()[1] == "statefulset.apps/web"


async def test_a_partition_keeps_the_first_pods(api: Api) -> None:
    async with running(api):
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
        await api.ok("POST", STATEFUL, stateful(replicas=3, updateStrategy=strategy))
        await settled(api, 3)
        await api.ok("PATCH", f"{STATEFUL}/web", {"spec": {"template": template("img:2")}}, media=MERGE)
        await settled(api, 3, updated=1)
        pods = (await api.ok("GET", PODS))["items"]
        assert [pod["spec"]["containers"][0]["image"] for pod in pods] == ["img:1", "img:1", "img:2"]
        await api.ok("DELETE", f"{PODS}/web-0")  # the next one is of the old template again
        await until(api, PODS, lambda found: len(found) == 3 and found[0]["metadata"]["uid"] != uid_of(pods[0]))
        assert images((await api.ok("GET", PODS))["items"]) == ["img:1", "img:1", "img:2"]


def uid_of(obj: Object) -> str:
    return str(obj["metadata"]["uid"])


async def test_on_delete_waits_for_somebody_to_delete(api: Api) -> None:
    async with running(api):
        strategy = {"type": "OnDelete"}
        await api.ok("POST", STATEFUL, stateful(updateStrategy=strategy, podManagementPolicy="Parallel"))
        await settled(api, 2)
        await api.ok("PATCH", f"{STATEFUL}/web", {"spec": {"template": template("img:2")}}, media=MERGE)
        found = await settled(api, 2, updated=0)
        assert found["status"]["currentReplicas"] == 2
        await api.ok("DELETE", f"{PODS}/web-0")
        await settled(api, 2, updated=1)
        pods = (await api.ok("GET", PODS))["items"]
        assert [pod["spec"]["containers"][0]["image"] for pod in pods] == ["img:2", "img:1"]


CLAIM = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
}


async def test_claims_stay_unless_the_policy_says_otherwise(api: Api) -> None:
    async with running(api):
        spec = template()["spec"]
        spec["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        kept = stateful(template={**template(), "spec": spec}, volumeClaimTemplates=[CLAIM])
        await api.ok("POST", STATEFUL, kept)
        await settled(api, 2)
        (claim, _) = (await api.ok("GET", CLAIMS))["items"]
        assert (claim["metadata"]["name"], claim["metadata"]["labels"]) == ("data-web-0", {"app": "web"})
        (pod, _) = (await api.ok("GET", PODS))["items"]
        assert pod["spec"]["volumes"][0] == {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}
        await api.ok("PATCH", f"{STATEFUL}/web", {"spec": {"replicas": 1}}, media=MERGE)
        await settled(api, 1)
        assert names((await api.ok("GET", CLAIMS))["items"]) == ["data-web-0", "data-web-1"]
        policy = {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}}
        await api.ok("PATCH", f"{STATEFUL}/web", {"spec": {**policy, "replicas": 2}}, media=MERGE)
        await settled(api, 2)
        await api.ok("PATCH", f"{STATEFUL}/web", {"spec": {"replicas": 1}}, media=MERGE)
        await until(api, CLAIMS, lambda found: names(found) == ["data-web-0"])
        await api.ok("DELETE", f"{STATEFUL}/web")
        await until(api, CLAIMS, lambda found: not found)


async def test_it_takes_pods_of_its_name_that_nobody_controls(kube: Kubectl, api: Api) -> None:
    async with running(api):
        await api.ok("POST", STATEFUL, stateful())
        await settled(api, 2)
        before = {uid_of(pod) for pod in (await api.ok("GET", PODS))["items"]}
        await kube("delete", "sts", "web", "--cascade=orphan")
        await api.ok("POST", STATEFUL, stateful())
        await settled(api, 2)
        assert {uid_of(pod) for pod in (await api.ok("GET", PODS))["items"]} == before


async def test_pods_that_fail_are_made_again_with_pauses(api: Api) -> None:
    made: list[str] = []
    async with running(api, lambda pod: ready_status("10.1.0.1", ready=False, phase="Failed")):
        async with api.watch(PODS) as lines:
            await api.ok("POST", STATEFUL, stateful(replicas=1))
            with contextlib.suppress(TimeoutError):
                while True:
                    event = await lines.next(2.0)
                    if event["type"] == "ADDED":
                        made.append(event["object"]["metadata"]["name"])
        assert made[:3] == ["web-0"] * 3
        assert len(made) < 6


async def test_an_idle_set_writes_nothing(api: Api) -> None:
    async with running(api):
        await api.ok("POST", STATEFUL, stateful(replicas=2))
        await settled(api, 2)
        before = await version(api)
        for _ in range(20):  # each request is a turn of the event loop for the controller
            await api.ok("GET", STATEFUL)
        assert await version(api) == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"podManagementPolicy": "Some"}, "must be 'OrderedReady' or 'Parallel'"),
        ({"updateStrategy": {"type": "Slowly"}}, "must be 'RollingUpdate' or 'OnDelete'"),
        (
            {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}},
            "only allowed for updateStrategy",
        ),
        ({"updateStrategy": {"rollingUpdate": {"partition": -1}}}, "must be greater than or equal to 0"),
        ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ({"serviceName": "Not A Name"}, "a lowercase RFC 1123 label"),
        ({"selector": {"matchLabels": {"app": "other"}}}, "`selector` does not match template `labels`"),
        ({"template": template(restartPolicy="Never")}, 'spec.template.spec.restartPolicy: Unsupported value: "Never"'),
        ({"volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}]}, "at least 1 access mode is required"),
        ({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Maybe"}}, 'Unsupported value: "Maybe"'),
        ({"volumeClaimTemplates": [7]}, "must be an object"),
        ({"ordinals": {"start": -1}}, "must be greater than or equal to 0"),
    ],
)
async def test_what_is_no_stateful_set_is_refused(api: Api, change: Object, why: str) -> None:
    status, answer = await api("POST", STATEFUL, stateful(**change))
    assert status == 422, answer
    assert why in answer["message"]


async def test_some_fields_never_change(api: Api) -> None:
    await api.ok("POST", STATEFUL, stateful())
    status, answer = await api("PATCH", f"{STATEFUL}/web", {"spec": {"serviceName": "others"}}, media=MERGE)
    assert status == 422
    assert "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template'" in answer["message"]
