"""Init containers run one after the other before the others start; one that fails is retried, or fails the pod."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.conformance.harness import Kube
from tests.conformance.reading import condition, state, status, terminated


def initial(kube: Kube, *scripts: list[str], **spec: Any) -> dict[str, Any]:
    inits = [kube.container(*script, name=f"init-{i}") for i, script in enumerate(scripts, start=1)]
    return {"initContainers": inits, **spec}


async def test_one_after_the_other(kube: Kube) -> None:
    await kube.create("print", "main", spec=initial(kube, ["print", "one"], ["print", "two"]))
    pod = await kube.phase("Succeeded")
    ends = [terminated(pod, name) for name in ("init-1", "init-2", "c")]
    assert [end["exitCode"] for end in ends] == [0, 0, 0]
    times = [datetime.fromisoformat(end[key]) for end in ends for key in ("startedAt", "finishedAt")]
    assert times == sorted(times)
    assert [status(pod, name)["ready"] for name in ("init-1", "init-2", "c")] == [True, True, False]
    assert condition(pod, "Initialized")["status"] == "True"
    assert await kube.log(container="init-2") == "two\n"


async def test_a_failure_under_never_fails_the_pod(kube: Kube) -> None:
    await kube.create("print", "main", spec=initial(kube, ["exit", "1"], ["print", "two"]))
    pod = await kube.phase("Failed")
    assert terminated(pod, "init-1")["exitCode"] == 1
    assert status(pod, "init-1")["restartCount"] == 0
    for name in ("init-2", "c"):
        assert state(pod, name)["waiting"]["reason"] == "PodInitializing"
    assert condition(pod, "Initialized")["status"] == "False"
    assert await kube.log_status() == 400


async def test_a_failure_is_retried_and_holds_up_the_others(kube: Kube) -> None:
    for policy in ("Always", "OnFailure"):
        name = policy.lower()
        spec = initial(kube, ["exit", "1"], ["print", "two"], restartPolicy=policy)
        await kube.create("print", "main", name=name, spec=spec)
        pod = await kube.until(lambda pod: status(pod, "init-1").get("restartCount") == 3, name)
        assert pod["status"]["phase"] == "Pending"
        assert state(pod)["waiting"]["reason"] == "PodInitializing"
        await kube.waiting("CrashLoopBackOff", name, "init-1")
    assert "Init:" in await kube.kubectl("get", "pod", "always", "--no-headers")


async def test_an_init_container_runs_once(kube: Kube) -> None:
    await kube.create("exit", "1", spec=initial(kube, ["print", "one"], restartPolicy="Always"))
    pod = await kube.until(lambda pod: status(pod).get("restartCount") == 2)
    assert status(pod, "init-1")["restartCount"] == 0
