"""Deployments and ReplicaSets, with real kubectl and a stand-in for the kubelet that runs their pods."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.controlplane.client import MERGE, PODS, Api, Kubectl, Object, pod
from tests.controlplane.controllers.workloads import (
    DEPLOYMENTS,
    LABELS,
    SETS,
    available,
    deployment,
    ready_status,
    replica_set,
    running,
    template,
    until,
)

REVISION = "deployment.kubernetes.io/revision"


def images(pods: list[Object]) -> list[str]:
    return sorted(item["spec"]["containers"][0]["image"] for item in pods)


async def version(api: Api) -> int:
    """The number of writes so far."""
    listed = await api.ok("GET", "/api/v1/namespaces")
    return int(listed["metadata"]["resourceVersion"])


async def test_apply_scale_roll_out_undo_and_delete(kube: Kubectl, api: Api) -> None:
    async with running(api):
        assert await kube("apply", "-f", "-", stdin=deployment()) == "deployment.apps/web created\n"
        assert await kube("apply", "-f", "-", stdin=deployment()) == "deployment.apps/web unchanged\n"
        out = await kube("rollout", "status", "deployment/web")
        assert "successfully rolled out" in out
        head, line = (await kube("get", "deploy")).splitlines()
        assert head.split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
        assert line.split()[:4] == ["web", "2/2", "2", "2"]

        assert await kube("scale", "deployment/web", "--replicas=5") == "deployment.apps/web scaled\n"
        await available(api, 5)
        assert len((await api.ok("GET", PODS))["items"]) == 5

        await kube("set", "image", "deployment/web", "c=img:2")
        assert "successfully rolled out" in await kube("rollout", "status", "deployment/web")
        pods = await until(api, PODS, lambda found: images(found) == ["img:2"] * 5)
        hashes = {item["metadata"]["labels"]["pod-template-hash"] for item in pods}
        assert len(hashes) == 1
        head, *lines = (await kube("get", "rs")).splitlines()
        assert head.split() == ["NAME", "DESIRED", "CURRENT", "READY", "AGE"]
        assert sorted(line.split()[1:4] for line in lines) == [["0", "0", "0"], ["5", "5", "5"]]

        assert (await kube("rollout", "undo", "deployment/web")).startswith("deployment.apps/web rolled back")
        await until(api, PODS, lambda found: images(found) == ["img:1"] * 5)
        history = await kube("rollout", "history", "deployment/web")
        assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["2", "3"]

        assert await kube("delete", "deployment", "web") == 'deployment.apps "web" deleted\n'
        await until(api, PODS, lambda found: not found)
        assert (await api.ok("GET", SETS))["items"] == []


async def test_server_side_apply_and_a_scale_beside_it(kube: Kubectl, api: Api) -> None:
    wanted = deployment()
    del wanted["spec"]["replicas"]
    assert "serverside-applied" in await kube("apply", "--server-side", "-f", "-", stdin=wanted)
    await kube("scale", "deployment/web", "--replicas=3")
    assert "serverside-applied" in await kube("apply", "--server-side", "-f", "-", stdin=wanted)
    assert (await api.ok("GET", f"{DEPLOYMENTS}/web"))["spec"]["replicas"] == 3
    wanted["spec"]["replicas"] = 4
    code, _, err = await kube.run("apply", "--server-side", "-f", "-", stdin=wanted)
    assert code != 0
    assert ".spec.replicas" in err


async def test_a_rolling_update_keeps_to_its_limits(kube: Kubectl, api: Api) -> None:
    """Pods of the new template that never get ready leave as many of the old ones as have to be available."""
    broken: set[str] = {"img:2"}

    def status_of(pod: Object) -> Object | None:
        ready = pod["spec"]["containers"][0]["image"] not in broken
        return ready_status("10.1.0.1", ready=ready)

    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}
    async with running(api, status_of):
        await api.ok("POST", DEPLOYMENTS, deployment(replicas=4, strategy=rolling))
        await available(api, 4)
        await kube("set", "image", "deployment/web", "c=img:2")
        await until(api, PODS, lambda found: images(found) == ["img:1"] * 3 + ["img:2"] * 2)
        code, out, _ = await kube.run("rollout", "status", "deployment/web", "--timeout=1s")
        assert code != 0, out
        assert "2 out of 4 new replicas have been updated" in out
        assert images((await api.ok("GET", PODS))["items"]) == ["img:1"] * 3 + ["img:2"] * 2
        await kube("rollout", "undo", "deployment/web")
        await until(api, PODS, lambda found: images(found) == ["img:1"] * 4)


async def test_recreate_ends_all_old_pods_before_it_makes_new_ones(kube: Kubectl, api: Api) -> None:
    both: list[tuple[str, ...]] = []
    async with running(api):
        await api.ok("POST", DEPLOYMENTS, deployment(strategy={"type": "Recreate"}))
        await available(api, 2)
        listed = await api.ok("GET", PODS)
        there = {item["metadata"]["name"]: item for item in listed["items"]}
        async with api.watch(PODS, resourceVersion=listed["metadata"]["resourceVersion"]) as lines:
            await kube("set", "image", "deployment/web", "c=img:2")
            while images(list(there.values())) != ["img:2"] * 2:
                event = await lines.next()
                there[event["object"]["metadata"]["name"]] = event["object"]
                if event["type"] == "DELETED":
                    del there[event["object"]["metadata"]["name"]]
                both.append(tuple(sorted(set(images(list(there.values()))))))
        assert ("img:1", "img:2") not in both
        await available(api, 2)


async def test_a_deployment_that_does_not_get_ready_says_so_in_time(kube: Kubectl, api: Api) -> None:
    await api.ok("POST", DEPLOYMENTS, deployment(progressDeadlineSeconds=1))
    code, _, err = await kube.run("rollout", "status", "deployment/web", "--timeout=60s")
    assert code != 0
    assert 'deployment "web" exceeded its progress deadline' in err


async def test_pause_and_resume(kube: Kubectl, api: Api) -> None:
    async with running(api):
        await api.ok("POST", DEPLOYMENTS, deployment())
        await available(api, 2)
        await kube("rollout", "pause", "deployment/web")
        await kube("set", "image", "deployment/web", "c=img:2")
        await kube("scale", "deployment/web", "--replicas=3")
        await until(api, PODS, lambda found: images(found) == ["img:1"] * 3)
        await kube("rollout", "resume", "deployment/web")
        await until(api, PODS, lambda found: images(found) == ["img:2"] * 3)


async def test_old_revisions_are_deleted_beyond_their_limit(kube: Kubectl, api: Api) -> None:
    async with running(api):
        await api.ok("POST", DEPLOYMENTS, deployment(revisionHistoryLimit=1))
        for number in (2, 3, 4):
            await available(api, 2)
            await kube("set", "image", "deployment/web", f"c=img:{number}")
        await available(api, 2)
        sets = await until(api, SETS, lambda found: len(found) == 2)
        assert sorted(item["metadata"]["annotations"][REVISION] for item in sets) == ["3", "4"]


async def test_a_replica_set_adopts_and_lets_go(api: Api) -> None:
    mine = pod("mine")
    mine["metadata"]["labels"] = LABELS
    await api.ok("POST", PODS, mine)
    await api.ok("POST", SETS, replica_set())
    pods = await until(api, PODS, lambda found: len(found) == 2)
    adopted = next(item for item in pods if item["metadata"]["name"] == "mine")
    assert adopted["metadata"]["ownerReferences"][0]["name"] == "rs"
    await api.ok("PATCH", f"{PODS}/mine", {"metadata": {"labels": {"app": "other"}}}, media=MERGE)
    pods = await until(api, PODS, lambda found: len(found) == 3 and "ownerReferences" not in found[0]["metadata"])
    assert pods[0]["metadata"]["name"] == "mine"


async def test_the_pods_that_are_worth_least_go_first(api: Api) -> None:
    async with running(api, lambda pod: ready_status("10.1.0.1")) as runner:
        await api.ok("POST", SETS, replica_set(replicas=4))
        pods = await until(api, SETS, lambda found: found[0].get("status", {}).get("readyReplicas") == 4)
        names = [item["metadata"]["name"] for item in (await api.ok("GET", PODS))["items"]]
        await runner.say(names[2], ready_status("10.1.0.1", ready=False))
        cost = {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}}}
        await api.ok("PATCH", f"{PODS}/{names[0]}", cost, media=MERGE)
        await until(api, SETS, lambda found: found[0]["status"]["readyReplicas"] == 3)
        await api.ok("PATCH", f"{SETS}/rs/scale", {"spec": {"replicas": 2}}, media=MERGE)
        pods = await until(api, PODS, lambda found: len(found) == 2)
        assert [item["metadata"]["name"] for item in pods] == [names[1], names[3]]


async def test_pods_that_are_refused_are_told_of_and_tried_again_after_a_pause(api: Api) -> None:
    await api.ok("POST", SETS, replica_set(template=template(serviceAccountName="nobody")))
    (found,) = await until(api, SETS, lambda found: found[0].get("status", {}).get("conditions"))
    (condition,) = found["status"]["conditions"]
    assert (condition["type"], condition["reason"]) == ("ReplicaFailure", "FailedCreate")
    assert 'serviceaccount "nobody" not found' in condition["message"]
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody"}}
    await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts", account)
    await until(api, PODS, lambda found: len(found) == 2)
    (found,) = await until(api, SETS, lambda found: not found[0]["status"].get("conditions"))


async def test_pods_that_fail_at_once_do_not_pile_up(api: Api) -> None:
    """The first is replaced at once, the next ones after pauses of one second, two, four."""
    async with running(api, lambda pod: ready_status("10.1.0.1", ready=False, phase="Failed")):
        await api.ok("POST", SETS, replica_set(replicas=1))
        pods = await until(api, PODS, lambda found: [item["status"]["phase"] for item in found] == ["Failed"] * 3)
        assert len(pods) == 3


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"selector": {"matchLabels": {"app": "other"}}}, "`selector` does not match template `labels`"),
        ({"selector": {}}, "spec.selector: Required value"),
        ({"selector": {"matchExpressions": [{"key": "a", "operator": "Some"}]}}, "not a valid label selector operator"),
        ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ({"template": template(restartPolicy="Never")}, 'spec.template.spec.restartPolicy: Unsupported value: "Never"'),
        ({"template": template(image="")}, "spec.template.spec.containers[0].image: Required value"),
        ({"strategy": {"type": "Slowly"}}, 'Unsupported value: "Slowly"'),
        ({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}, "may not be 0 when `maxSurge` is 0"),
        ({"strategy": {"rollingUpdate": {"maxUnavailable": "1" * 5000 + "%"}}}, "a valid percent string"),
        ({"strategy": {"rollingUpdate": {"maxSurge": "a lot"}}}, "a valid percent string"),
        ({"minReadySeconds": 600}, "must be greater than minReadySeconds"),
    ],
)
async def test_what_is_no_deployment_is_refused(api: Api, change: Object, why: str) -> None:
    status, answer = await api("POST", DEPLOYMENTS, deployment(**change))
    assert status == 422, answer
    assert why in answer["message"]


async def test_a_selector_stays_as_it_is(api: Api) -> None:
    await api.ok("POST", DEPLOYMENTS, deployment())
    labels = {"app": "web", "more": "x"}
    changed: dict[str, Any] = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}
    status, answer = await api("PATCH", f"{DEPLOYMENTS}/web", {"spec": changed}, media=MERGE)
    assert (status, "field is immutable" in answer["message"]) == (422, True)


async def test_an_idle_deployment_writes_nothing_and_a_flapping_pod_little(api: Api) -> None:
    async with running(api) as runner:
        await api.ok("POST", DEPLOYMENTS, deployment())
        await available(api, 2)
        names = [item["metadata"]["name"] for item in (await api.ok("GET", PODS))["items"]]
        before = await version(api)
        for _ in range(20):  # each request is a turn of the event loop for the controllers
            await api.ok("GET", DEPLOYMENTS)
        assert await version(api) == before
        for turn in range(10):
            await runner.say(names[0], ready_status("10.1.0.9", ready=turn % 2 == 1))
        await available(api, 2)
        # The pod, its ReplicaSet and the Deployment, each time; the Deployment's condition and counts are one write.
        assert await version(api) - before <= 3 * 10 + 2


async def test_a_scale_is_read_and_written(kube: Kubectl, api: Api) -> None:
    await api.ok("POST", DEPLOYMENTS, deployment())
    path = f"{DEPLOYMENTS}/web/scale"
    scale = await api.ok("GET", path)
    assert (scale["kind"], scale["spec"], scale["status"]["selector"]) == ("Scale", {"replicas": 2}, "app=web")
    scale["spec"]["replicas"] = 1
    stale = json.loads(json.dumps(scale))
    assert (await api.ok("PUT", path, scale))["spec"] == {"replicas": 1}
    status, answer = await api("PUT", path, stale)
    assert (status, answer["reason"]) == (409, "Conflict")
    status, answer = await api("PATCH", path, {"spec": {"replicas": -1}}, media=MERGE)
    assert (status, answer["reason"]) == (422, "Invalid")
    code, _, err = await kube.run("scale", "deployment/web", "--current-replicas=7", "--replicas=2")
    assert code != 0
    assert "Expected replicas to be 7, was 1" in err
