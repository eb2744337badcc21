"""PodDisruptionBudgets, and evictions that they refuse, with real kubectl and a stand-in for the kubelet."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.controlplane.client import MERGE, PODS, STRATEGIC, Api, Kubectl, Object, pod
from tests.controlplane.controllers.test_deployments import version
from tests.controlplane.controllers.workloads import (
    DEPLOYMENTS,
    LABELS,
    available,
    deployment,
    ready_status,
    running,
    until,
)

BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"


def budget(name: str = "web", **spec: Any) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": LABELS}, **spec},
    }


def eviction(name: str, **more: Any) -> Object:
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, **more}


async def counted(api: Api, **counts: int) -> Object:
    """Wait until the status of the budget says so; the status."""

    def hold(found: list[Object]) -> bool:
        status = found[0].get("status", {})
        return {key: status.get(key) for key in counts} == counts

    status: Object = (await until(api, BUDGETS, hold))[0]["status"]
    return status


async def test_a_budget_refuses_and_a_drain_waits(kube: Kubectl, api: Api) -> None:
    async with running(api) as runner:
        await api.ok("POST", DEPLOYMENTS, deployment(replicas=3))
        await available(api, 3)
        assert "created" in await kube("create", "pdb", "web", "--selector=app=web", "--min-available=2")
        status = await counted(api, disruptionsAllowed=1)
        assert {key: status[key] for key in ("currentHealthy", "desiredHealthy", "expectedPods")} == {
            "currentHealthy": 3,
            "desiredHealthy": 2,
            "expectedPods": 3,
        }
        assert status["observedGeneration"] == 1
        (told,) = status["conditions"]
        assert (told["type"], told["status"], told["reason"]) == ("DisruptionAllowed", "True", "SufficientPods")
        head, line = (await kube("get", "pdb")).splitlines()
        assert head.split() == ["NAME", "MIN", "AVAILABLE", "MAX", "UNAVAILABLE", "ALLOWED", "DISRUPTIONS", "AGE"]
        assert line.split()[:4] == ["web", "2", "N/A", "1"]
        # Nobody makes the next pod ready, so one eviction is all that there is room for.
        runner.status_of = lambda pod: None
        one, two, _ = [item["metadata"]["name"] for item in (await api.ok("GET", PODS))["items"]]
        assert (await api.ok("POST", f"{PODS}/{one}/eviction?dryRun=All", eviction(one)))["status"] == "Success"
        done = await api.ok("POST", f"{PODS}/{one}/eviction", eviction(one))
        assert (done["kind"], done["status"]) == ("Status", "Success")
        status, answer = await api("POST", f"{PODS}/{two}/eviction", eviction(two))
        assert (status, answer["reason"]) == (429, "TooManyRequests")
        assert answer["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
        (cause,) = answer["details"]["causes"]
        assert cause["reason"] == "DisruptionBudget"
        assert cause["message"] == "The disruption budget web needs 2 healthy pods and has 2 currently"
        code, _, err = await kube.run("drain", "n1", "--force", "--timeout=6s")
        assert code != 0
        assert "Cannot evict pod as it would violate the pod's disruption budget." in err
        assert "SchedulingDisabled" in await kube("get", "node", "n1")
        assert "uncordoned" in await kube("uncordon", "n1")
        # As pods get ready again, the budget lets the others go, and the drain goes through.
        waiting = [item["metadata"]["name"] for item in (await api.ok("GET", PODS))["items"]]
        for at, name in enumerate(waiting):
            await runner.say(name, ready_status(f"10.1.1.{at + 1}"))
        await counted(api, disruptionsAllowed=1)
        await api.ok("PATCH", f"{BUDGETS}/web", {"spec": {"minAvailable": 0}}, media=MERGE)
        assert "drained" in await kube("drain", "n1", "--timeout=120s")
        assert not [item for item in (await api.ok("GET", PODS))["items"] if item["spec"].get("nodeName")]


async def test_percentages_count_from_the_size_of_the_deployment(api: Api) -> None:
    async with running(api):
        await api.ok("POST", DEPLOYMENTS, deployment(replicas=3))
        await available(api, 3)
        await api.ok("POST", BUDGETS, budget(maxUnavailable="50%"))
        await counted(api, expectedPods=3, desiredHealthy=1, disruptionsAllowed=2)
        await api.ok("PATCH", f"{BUDGETS}/web", {"spec": {"maxUnavailable": None, "minAvailable": "50%"}}, media=MERGE)
        await counted(api, expectedPods=3, desiredHealthy=2, disruptionsAllowed=1, observedGeneration=2)
        await api.ok("PATCH", f"{BUDGETS}/web", {"spec": {"maxUnavailable": 0, "minAvailable": None}}, media=MERGE)
        await counted(api, desiredHealthy=3, disruptionsAllowed=0)


async def test_pods_that_are_not_ready(api: Api) -> None:
    async with running(api, lambda pod: None) as runner:
        for name in ("a", "b"):
            await api.ok("POST", PODS, pod(name) | {"metadata": {"name": name, "labels": LABELS}})
        await api.ok("POST", BUDGETS, budget(minAvailable=1))
        await until(api, PODS, lambda found: all(item["spec"].get("nodeName") for item in found))
        await counted(api, currentHealthy=0, desiredHealthy=1, expectedPods=2, disruptionsAllowed=0)
        for name in ("a", "b"):
            await runner.say(name, ready_status("10.1.0.1", ready=False))
        status, _ = await api("POST", f"{PODS}/a/eviction", eviction("a"))
        assert status == 429  # there are fewer healthy ones than there ought to be
        await runner.say("b", ready_status("10.1.0.2"))
        await counted(api, currentHealthy=1)
        await api.ok("POST", f"{PODS}/a/eviction", eviction("a"))  # now it does no harm
        status, _ = await api("POST", f"{PODS}/b/eviction", eviction("b"))
        assert status == 429
        await runner.say("b", ready_status("10.1.0.2", ready=False))
        await counted(api, currentHealthy=0)
        policy = {"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}
        await api.ok("PATCH", f"{BUDGETS}/web", policy, media=MERGE)
        await api.ok("POST", f"{PODS}/b/eviction", eviction("b"))


async def test_two_budgets_refuse_and_none_lets_go(api: Api) -> None:
    async with running(api):
        await api.ok("POST", PODS, pod("a") | {"metadata": {"name": "a", "labels": LABELS}})
        await until(api, PODS, lambda found: found[0]["status"]["phase"] == "Running")
        await api.ok("POST", BUDGETS, budget("one", maxUnavailable=0))
        await api.ok("POST", BUDGETS, budget("two", maxUnavailable=0))
        status, answer = await api("POST", f"{PODS}/a/eviction", eviction("a"))
        assert (status, "more than one PodDisruptionBudget" in answer["message"]) == (500, True)
        for name in ("one", "two"):
            await api.ok("DELETE", f"{BUDGETS}/{name}")
        status, answer = await api("POST", f"{PODS}/a/eviction", eviction("other"))
        assert (status, answer["message"]) == (400, "name in URL does not match name in Eviction object")
        wrong = {"preconditions": {"uid": "another"}}
        status, answer = await api("POST", f"{PODS}/a/eviction", eviction("a", deleteOptions=wrong))
        assert (status, answer["reason"]) == (409, "Conflict")
        async with api.watch(PODS, resourceVersion=str(await version(api))) as lines:
            await api.ok("POST", f"{PODS}/a/eviction", eviction("a"))
            event = await lines.next()
        told = next(item for item in event["object"]["status"]["conditions"] if item["type"] == "DisruptionTarget")
        assert (told["status"], told["reason"]) == ("True", "EvictionByEvictionAPI")


async def test_evictions_at_once_never_exceed_the_budget(api: Api) -> None:
    async with running(api) as runner:
        await api.ok("POST", DEPLOYMENTS, deployment(replicas=6))
        await available(api, 6)
        await api.ok("POST", BUDGETS, budget(minAvailable=4))
        await counted(api, disruptionsAllowed=2)
        runner.status_of = lambda pod: None
        names = [item["metadata"]["name"] for item in (await api.ok("GET", PODS))["items"]]
        answers = await asyncio.gather(*(api("POST", f"{PODS}/{name}/eviction", eviction(name)) for name in names))
        assert sorted(status for status, _ in answers) == [201, 201, 429, 429, 429, 429]
        await counted(api, currentHealthy=4, disruptionsAllowed=0)


async def test_pods_of_nobody_are_told_of(kube: Kubectl, api: Api) -> None:
    await api.ok("POST", PODS, pod("a") | {"metadata": {"name": "a", "labels": LABELS}})
    await api.ok("POST", BUDGETS, budget(minAvailable="50%"))
    await counted(api, expectedPods=0, desiredHealthy=0, disruptionsAllowed=0)
    assert "UnmanagedPods" in await kube("get", "events", "--field-selector=involvedObject.name=web")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "kube-root-ca.crt", "controller": True}
    owner["uid"] = (await api.ok("GET", "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"))["metadata"]["uid"]
    await api.ok("PATCH", f"{PODS}/a", {"metadata": {"ownerReferences": [owner]}}, media=STRATEGIC)

    def failed(found: list[Object]) -> bool:
        return bool(found[0]["status"]["conditions"][0]["reason"] == "SyncFailed")

    (found,) = await until(api, BUDGETS, failed)
    assert found["status"]["conditions"][0]["message"] == 'found no controllers for pod "a"'
    before = await version(api)
    for _ in range(20):
        await api.ok("GET", BUDGETS)
    assert await version(api) == before


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"minAvailable": 1, "maxUnavailable": 1}, "minAvailable and maxUnavailable cannot be both set"),
        ({"minAvailable": "half"}, "a valid percent string must be a numeric string followed by an ending '%'"),
        ({"maxUnavailable": "101%"}, "must not be greater than 100%"),
        ({"minAvailable": -1}, "must be greater than or equal to 0"),
        ({"unhealthyPodEvictionPolicy": "Maybe"}, 'supported values: "AlwaysAllow", "IfHealthyBudget"'),
        ({"selector": {"matchExpressions": [{"key": "a", "operator": "Some"}]}}, "is not a valid label selector"),
    ],
)
async def test_what_is_no_budget_is_refused(api: Api, spec: Object, why: str) -> None:
    status, answer = await api("POST", BUDGETS, budget(**spec))
    assert status == 422, answer
    assert why in answer["message"]
