"""Jobs, with real kubectl and a stand-in for the kubelet that ends their pods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.controlplane.client import MERGE, PODS, Api, Kubectl, Object, open_api
from tests.controlplane.controllers.test_deployments import version
from tests.controlplane.controllers.workloads import ready_status, running, until
from wasmlet.controlplane.controllers.batch.indexes import missing, text_of
from wasmlet.controlplane.controllers.batch.tally import FIRST_PAUSE
from wasmlet.testing import ControlPlane, FakeClock

JOBS = "/apis/batch/v1/namespaces/default/jobs"


def job(name: str = "sum", policy: str = "Never", **spec: Any) -> Object:
    container = {"name": "c", "image": "img:1"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": {"containers": [container], "restartPolicy": policy}}, **spec},
    }


def ended(phase: str) -> Object:
    return {**ready_status("10.1.0.1", ready=False), "phase": phase}


async def finished(api: Api, kind: str) -> Object:
    """Wait until the Job has that condition; its status."""

    def hold(found: list[Object]) -> bool:
        told = found[0].get("status", {}).get("conditions", []) if found else []
        return any((item["type"], item["status"]) == (kind, "True") for item in told)

    status: Object = (await until(api, JOBS, hold))[0]["status"]
    return status


def reasons(status: Object) -> list[tuple[str, str]]:
    return [(item["type"], item["reason"]) for item in status["conditions"]]


async def test_a_job_runs_to_its_end(kube: Kubectl, api: Api) -> None:
    async with running(api, lambda pod: ended("Succeeded")):
        await kube("create", "job", "sum", "--image=img:1", "--", "add", "1")
        assert "condition met" in await kube("wait", "--for=condition=complete", "job/sum", "--timeout=120s")
        status = await finished(api, "Complete")
        assert (status["succeeded"], status["ready"], status["terminating"]) == (1, 0, 0)
        assert status["uncountedTerminatedPods"] == {}
        assert "completionTime" in status
        want = [("SuccessCriteriaMet", "CompletionsReached"), ("Complete", "CompletionsReached")]
        assert reasons(status) == want
        (pod,) = (await api.ok("GET", PODS))["items"]
        labels = pod["metadata"]["labels"]
        assert (labels["job-name"], labels["batch.kubernetes.io/job-name"]) == ("sum", "sum")
        head, line = (await kube("get", "jobs")).splitlines()
        assert head.split() == ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"]
        assert line.split()[:3] == ["sum", "Complete", "1/1"]
        await api.ok("DELETE", f"{JOBS}/sum", {"propagationPolicy": "Background"})
        await until(api, PODS, lambda found: not found)


async def test_completions_and_parallelism(api: Api) -> None:
    async with running(api, lambda pod: None) as runner:
        await api.ok("POST", JOBS, job(completions=3, parallelism=2))
        pods = await until(api, PODS, lambda found: len(found) == 2)
        await runner.say(pods[0]["metadata"]["name"], ended("Succeeded"))
        pods = await until(api, PODS, lambda found: len(found) == 3)
        await api.ok("PATCH", f"{JOBS}/sum", {"spec": {"parallelism": 1}}, media=MERGE)
        await until(api, PODS, lambda found: len(found) == 2)
        for _ in range(2):
            found = await until(api, PODS, lambda found: any(pod["status"]["phase"] == "Pending" for pod in found))
            (under_way,) = [pod for pod in found if pod["status"]["phase"] == "Pending"]
            await runner.say(under_way["metadata"]["name"], ended("Succeeded"))
        status = await finished(api, "Complete")
        assert (status["succeeded"], status.get("failed", 0)) == (3, 0)  # the pod that was too many does not count
        before = await version(api)
        for _ in range(20):
            await api.ok("GET", JOBS)
        assert await version(api) == before


async def test_indexes(api: Api) -> None:
    async with running(api, lambda pod: ended("Succeeded")):
        await api.ok("POST", JOBS, job(completions=3, parallelism=3, completionMode="Indexed"))
        status = await finished(api, "Complete")
        assert (status["completedIndexes"], status["succeeded"]) == ("0-2", 3)
        pods = (await api.ok("GET", PODS))["items"]
        assert [item["spec"]["hostname"] for item in pods] == ["sum-0", "sum-1", "sum-2"]
        assert pods[1]["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == "1"
        (variable,) = pods[1]["spec"]["containers"][0]["env"]
        assert variable["name"] == "JOB_COMPLETION_INDEX"


@pytest.fixture
async def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def slow(clock: FakeClock) -> AsyncIterator[Api]:
    """A client of a control plane whose time stands still."""
    async with ControlPlane(clock=clock, node_monitor_grace=None) as plane, open_api(plane, plane.kubeconfig) as api:
        yield api


async def test_failures_are_tried_again_after_pauses_and_given_up(clock: FakeClock, slow: Api) -> None:
    async with running(slow, lambda pod: ended("Failed")):
        await slow.ok("POST", JOBS, job(backoffLimit=2))
        for at in range(2):
            await until(slow, JOBS, lambda found, at=at: found[0].get("status", {}).get("failed") == at + 1)
            clock.advance(await clock.next_sleep(FIRST_PAUSE * 2**at - 1, FIRST_PAUSE * 2**at))
        status = await finished(slow, "Failed")
        assert status["failed"] == 3
        want = [("FailureTarget", "BackoffLimitExceeded"), ("Failed", "BackoffLimitExceeded")]
        assert reasons(status) == want
        assert "completionTime" not in status


async def test_a_deadline_and_a_time_to_live(clock: FakeClock, slow: Api) -> None:
    async with running(slow, lambda pod: None):
        await slow.ok("POST", JOBS, job(activeDeadlineSeconds=30, ttlSecondsAfterFinished=100))
        await until(slow, PODS, lambda found: len(found) == 1)
        clock.advance(await clock.next_sleep(25, 30) + 1)
        status = await finished(slow, "Failed")
        assert reasons(status)[-1] == ("Failed", "DeadlineExceeded")
        assert (await slow.ok("GET", PODS))["items"] == []
        clock.advance(await clock.next_sleep(90, 100) + 1)
        await until(slow, JOBS, lambda found: not found)


async def test_a_job_waits_while_it_is_suspended(api: Api) -> None:
    async with running(api, lambda pod: None) as runner:
        await api.ok("POST", JOBS, job(suspend=True))
        status = await finished(api, "Suspended")
        assert ("startTime" in status, (await api.ok("GET", PODS))["items"]) == (False, [])
        await api.ok("PATCH", f"{JOBS}/sum", {"spec": {"suspend": False}}, media=MERGE)
        await until(api, PODS, lambda found: len(found) == 1)
        await api.ok("PATCH", f"{JOBS}/sum", {"spec": {"suspend": True}}, media=MERGE)
        await until(api, PODS, lambda found: not found)
        await api.ok("PATCH", f"{JOBS}/sum", {"spec": {"suspend": False}}, media=MERGE)
        (pod,) = await until(api, PODS, lambda found: len(found) == 1)
        await runner.say(pod["metadata"]["name"], ended("Succeeded"))
        status = await finished(api, "Complete")
        assert (status["succeeded"], status.get("failed", 0)) == (1, 0)
        assert reasons(status)[0] == ("Suspended", "JobResumed")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (job(policy="Always"), 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'),
        (job(parallelism=-1), "must be greater than or equal to 0"),
        (job(completionMode="Some"), 'Unsupported value: "Some"'),
        (job(completionMode="Indexed", parallelism=1), "spec.completions: Required value"),
        (job(podFailurePolicy={"rules": []}), "this control plane does not have it"),
        (job(selector={"matchLabels": {"a": "b"}}), "`selector` does not match template `labels`"),
    ],
)
async def test_what_is_no_job_is_refused(api: Api, body: Object, why: str) -> None:
    status, answer = await api("POST", JOBS, body)
    assert status == 422, answer
    assert why in answer["message"]


async def test_some_fields_never_change(api: Api) -> None:
    await api.ok("POST", JOBS, job())
    status, answer = await api("PATCH", f"{JOBS}/sum", {"spec": {"completions": 2}}, media=MERGE)
    assert (status, "field is immutable" in answer["message"]) == (422, True)


def test_numbers_as_text() -> None:
    assert text_of([5, 0, 1, 2, 7, 8]) == "0-2,5,7,8"
    assert missing(5, [0, 2], 2) == [1, 3]
