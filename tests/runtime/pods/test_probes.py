"""Probes by exec: every threshold, the events, what a failure does, what a node loop that comes back makes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.harness import PATIENCE, Runtime, pod_of
from tests.runtime.pods.scripted import Script, probe, script_of
from wasmlet.errors import Refused
from wasmlet.model.pod import Container, Pod, PodKey
from wasmlet.model.status import ContainerStatus, Running, Terminated, Waiting
from wasmlet.provider import ProbeCount
from wasmlet.runtime.pods import manifest
from wasmlet.runtime.pods.actions import Command
from wasmlet.runtime.pods.probes import Probe, Thresholds
from wasmlet.runtime.probe_counts import ProbeCounts

EASY = {"periodSeconds": 10, "failureThreshold": 1}


def of(**fields: Any) -> Probe:
    made = Probe.of(Container({"name": "c", "livenessProbe": probe("x", **fields)}, "spec.containers[0]"), "Liveness")
    assert made is not None
    return made


def test_the_apis_defaults() -> None:
    assert of() == Probe("Liveness", Command(("x",)), 0, 1, 10, 1, 3, None)
    every = of(
        initialDelaySeconds=1, timeoutSeconds=2, periodSeconds=3, successThreshold=4, failureThreshold=5,
        terminationGracePeriodSeconds=6,
    )  # fmt: skip
    assert every == Probe("Liveness", Command(("x",)), 1, 2, 3, 4, 5, 6)


@given(st.lists(st.booleans()), st.integers(1, 4), st.integers(1, 4))
def test_thresholds(results: list[bool], successes: int, failures: int) -> None:
    """The state is what came last as often in a row as its threshold says."""
    counted = Thresholds(of(successThreshold=successes, failureThreshold=failures))
    expected: bool | None = None
    for end, result in enumerate(results, 1):
        need = successes if result else failures
        if results[:end][-need:] == [result] * need:
            expected = result
        assert counted.count(result) is expected


def test_counts_go_with_their_pod() -> None:
    counts, one, two = ProbeCounts(), PodKey("n", "one", "1"), PodKey("n", "two", "2")
    for pod in (one, one, two):
        counts.add(ProbeCount(pod, "c", "Liveness", "failed"))
    assert counts.all() == {
        ProbeCount(one, "c", "Liveness", "failed"): 2,
        ProbeCount(two, "c", "Liveness", "failed"): 1,
    }
    counts.forget(one)
    assert list(counts.all()) == [ProbeCount(two, "c", "Liveness", "failed")]


@pytest.mark.parametrize("field", ["livenessProbe", "readinessProbe", "startupProbe"])
@pytest.mark.parametrize("kind", ["httpGet", "tcpSocket", "grpc"])
def test_probes_over_a_network_are_refused_by_name(field: str, kind: str) -> None:
    probes: dict[str, Any] = {field: {kind: {"port": 80}}}
    with pytest.raises(Refused) as refused:
        manifest.check(pod_of(image="file:///x.wasm", **probes))
    assert (
        str(refused.value)
        == f"spec.containers[0].{field}.{kind}: pods have no network on this node (--network); expected exec"
    )
    assert refused.value.container == "main"


async def pass_period(runtime: Runtime, script: Script, word: str, seconds: float = 10) -> None:
    """Let one period go by, to the next time that the probe is made."""
    async with asyncio.timeout(PATIENCE):
        await runtime.fake_clock.next_sleep(at_least=seconds)  # once the last answer has come
    times = script.asked[word] + 1
    runtime.fake_clock.advance(seconds)
    await script.until_asked(word, times)


async def restarted(runtime: Runtime, key: PodKey, count: int) -> ContainerStatus:
    return await runtime.main(key, lambda s: s.restart_count == count and isinstance(s.state, Running))


async def test_liveness(scripted: Runtime, image: str) -> None:
    script = script_of(scripted)
    live = probe("live", initialDelaySeconds=20, failureThreshold=2)
    key = await scripted.create(pod_of("sleep", "1000", image=image, restart="Always", livenessProbe=live))
    assert (await scripted.running(key)).is_ready
    assert await scripted.fake_clock.next_sleep() > 15
    assert script.asked["live"] == 0
    await pass_period(scripted, script, "live", 20)
    script.codes["live"] = 1
    await pass_period(scripted, script, "live")
    assert (await scripted.running(key)).restart_count == 0
    await scripted.event(key, "Unhealthy")
    await pass_period(scripted, script, "live")
    status = await restarted(scripted, key, 1)
    assert status.last_state is not None
    assert (status.last_state.exit_code, status.last_state.reason) == (143, "Error")
    events = [(e.type, e.message) for e in scripted.events if e.reason in ("Unhealthy", "Killing")]
    assert events == [
        ("Warning", "Liveness probe failed: live says 1"),
        ("Warning", "Liveness probe failed: live says 1"),
        ("Normal", "Container main failed liveness probe, will be restarted"),
    ]
    assert dict(scripted.provider.probe_counts()) == {
        ProbeCount(key, "main", "Liveness", "successful"): 1,
        ProbeCount(key, "main", "Liveness", "failed"): 2,
    }
    await scripted.provider.delete_pod(key, 0)
    assert scripted.provider.probe_counts() == {}


async def test_liveness_under_never_ends_the_pod(scripted: Runtime, image: str) -> None:
    script_of(scripted).codes["live"] = 1
    key = await scripted.create(pod_of("sleep", "1000", image=image, livenessProbe=probe("live", **EASY)))
    assert (await scripted.ended(key)).exit_code == 143
    assert (await scripted.event(key, "Killing")).message == "Container main failed liveness probe"
    assert (await scripted.provider.pod_status(key)).containers[0].restart_count == 0


async def test_restarts_after_liveness_are_put_off_at_last(scripted: Runtime, image: str) -> None:
    """The pause counts from the end before, so it is noticed only once it is longer than a container lives."""
    script_of(scripted).codes["live"] = 1
    live = probe("live", **EASY)
    key = await scripted.create(pod_of("sleep", "1000", image=image, restart="OnFailure", livenessProbe=live))
    await scripted.waiting(key, "CrashLoopBackOff")
    status = await scripted.provider.pod_status(key)
    assert status.containers[0].restart_count == 1
    scripted.fake_clock.advance(await scripted.fake_clock.next_sleep())
    await scripted.main(key, lambda s: s.restart_count == 2)


async def test_a_probe_that_takes_too_long_has_failed(scripted: Runtime, image: str) -> None:
    script = script_of(scripted)
    script.held.add("live")
    live = probe("live", timeoutSeconds=3, failureThreshold=1)
    key = await scripted.create(pod_of("sleep", "1000", image=image, restart="Always", livenessProbe=live))
    await script.until_asked("live")
    assert await scripted.fake_clock.next_sleep() == 3
    scripted.fake_clock.advance(3)
    event = await scripted.event(key, "Unhealthy")
    assert event.message == 'Liveness probe failed: command timed out: "live" timed out after 3s'
    assert script.cancelled[0] == "live"
    await scripted.event(key, "Killing")


async def test_a_probe_that_cannot_be_made_counts_for_nothing(scripted: Runtime, image: str) -> None:
    script = script_of(scripted)
    script.broken.add("live")
    key = await scripted.create(pod_of("sleep", "1000", image=image, livenessProbe=probe("live", **EASY)))
    event = await scripted.event(key, "Unhealthy")
    assert event.message == "Liveness probe errored and resulted in unknown state: there is no such command"
    await pass_period(scripted, script, "live")
    assert isinstance((await scripted.running(key)).state, Running)
    assert scripted.provider.probe_counts() == {}


async def test_readiness(scripted: Runtime, image: str) -> None:
    script = script_of(scripted)
    ready = probe("ready", initialDelaySeconds=5, successThreshold=2, failureThreshold=2)
    key = await scripted.create(pod_of("sleep", "1000", image=image, restart="Always", readinessProbe=ready))
    status = await scripted.running(key)
    assert (status.is_ready, status.is_started) == (False, True)
    await pass_period(scripted, script, "ready", 5)
    await pass_period(scripted, script, "ready")
    await scripted.main(key, lambda s: s.is_ready)
    script.codes["ready"] = 1
    await pass_period(scripted, script, "ready")
    await scripted.event(key, "Unhealthy", "Readiness probe failed: ready says 1")
    assert (await scripted.running(key)).is_ready
    await pass_period(scripted, script, "ready")
    status = await scripted.main(key, lambda s: not s.is_ready)
    assert (status.restart_count, isinstance(status.state, Running)) == (0, True)


async def test_the_startup_probe_holds_up_the_others(scripted: Runtime, image: str) -> None:
    script = script_of(scripted)
    script.codes |= {"up": 1, "live": 1}
    probes: dict[str, Any] = {
        "startupProbe": probe("up", failureThreshold=3),
        "livenessProbe": probe("live", failureThreshold=2),
        "readinessProbe": probe("ready"),
    }
    key = await scripted.create(pod_of("sleep", "1000", image=image, restart="Always", **probes))
    await script.until_asked("up")
    await pass_period(scripted, script, "up")
    status = await scripted.running(key)
    assert (status.is_started, status.is_ready) == (False, False)
    assert (script.asked["live"], script.asked["ready"]) == (0, 0)
    script.codes["up"] = 0
    await pass_period(scripted, script, "up")
    status = await scripted.main(key, lambda s: s.is_ready)
    assert status.is_started
    await script.until_asked("live")
    assert script.asked["up"] == 3
    script.codes["live"] = 0
    await pass_period(scripted, script, "live")
    assert script.asked["up"] == 3


async def test_a_startup_probe_that_fails(scripted: Runtime, image: str) -> None:
    script_of(scripted).codes["up"] = 1
    up = probe("up", failureThreshold=1)
    key = await scripted.create(pod_of("sleep", "1000", image=image, restart="Always", startupProbe=up))
    event = await scripted.event(key, "Killing")
    assert event.message == "Container main failed startup probe, will be restarted"
    await scripted.main(key, lambda s: s.restart_count == 1)


async def test_a_probe_has_a_grace_period_of_its_own(scripted: Runtime, image: str) -> None:
    """Shown by preStop, which has to be over within it."""
    script = script_of(scripted)
    script.codes["live"] = 1
    script.held.add("stop")
    live = probe("live", terminationGracePeriodSeconds=7, **EASY)
    hook = {"preStop": {"exec": {"command": ["stop"]}}}
    spec = {"terminationGracePeriodSeconds": 3600}
    key = await scripted.create(
        pod_of("sleep", "1000", image=image, restart="Always", livenessProbe=live, lifecycle=hook, spec=spec)
    )
    await script.until_asked("stop")
    assert await scripted.fake_clock.next_sleep() == 7
    script.codes["live"] = 0
    scripted.fake_clock.advance(7)
    await restarted(scripted, key, 1)


async def test_readiness_goes_on_while_a_pod_ends(scripted: Runtime, image: str) -> None:
    script = script_of(scripted)
    script.held.add("stop")
    hook = {"preStop": {"exec": {"command": ["stop"]}}}
    probes: dict[str, Any] = {"readinessProbe": probe("ready", **EASY), "livenessProbe": probe("live", **EASY)}
    key = await scripted.create(pod_of("sleep", "1000", image=image, lifecycle=hook, **probes))
    await scripted.main(key, lambda s: s.is_ready)
    script.codes |= {"ready": 1, "live": 1}
    ending = asyncio.create_task(scripted.provider.delete_pod(key, 3600))
    await script.until_asked("stop")
    asked = script.asked["live"]
    await scripted.main(key, lambda s: not s.is_ready)
    assert script.asked["live"] == asked
    await script.release("stop")
    final = await ending
    assert final is not None
    assert isinstance(final.containers[0].state, Terminated)


async def test_what_the_api_knows_goes_on_after_a_restart_of_the_node_loop(scripted: Runtime, image: str) -> None:
    script = script_of(scripted)
    probes: dict[str, Any] = {"startupProbe": probe("up"), "readinessProbe": probe("ready", failureThreshold=2)}
    pod = pod_of("sleep", "1000", image=image, restart="Always", **probes)
    key = await scripted.create(pod)
    status = await scripted.main(key, lambda s: s.is_ready)
    api = {"name": "main", "containerID": status.container_id, "started": True, "ready": True}
    script.held |= {"up", "ready"}
    await scripted.restart()
    (record,) = await scripted.provider.list_pods()
    assert (record.status.containers[0].ready, record.status.containers[0].started) == (None, None)
    await scripted.create(Pod({**pod.raw, "status": {"containerStatuses": [api]}}))
    status = await scripted.running(key)
    assert (status.is_ready, status.is_started) == (True, True)
    await script.until_asked("ready", 2)
    assert script.asked["up"] == 1
    # Of another instance the API's word says nothing.
    await scripted.restart()
    await scripted.create(Pod({**pod.raw, "status": {"containerStatuses": [{**api, "containerID": "wasm://other"}]}}))
    status = await scripted.running(key)
    assert (status.is_ready, status.is_started) == (False, False)
    assert not isinstance(status.state, Waiting)
