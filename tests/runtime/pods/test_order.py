"""The order of a pod's containers (init, sidecar, main, ephemeral), and how a pod comes to an end."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.harness import Runtime, pod_of
from tests.runtime.pods.scripted import probe, script_of
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.model.status import PodStatus, Running, Terminated, Waiting, phase_of
from wasmlet.node.pods.status import api_status
from wasmlet.runtime.pods import announce_compile


def sidecar(name: str, image: str, *args: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": image, "args": list(args or ("sleep", "1000")), "restartPolicy": "Always", **fields}


def conditions(runtime: Runtime, pod: Pod, status: PodStatus) -> dict[str, str]:
    """What the API would be told, as condition to status."""
    assert runtime.clock is not None
    shown = api_status(pod, {}, status, node_ips=["127.0.0.1"], now=runtime.clock.now())
    return {condition["type"]: condition["status"] for condition in shown["conditions"]}


async def test_a_sidecar_starts_first_and_ends_last(timed: Runtime, image: str) -> None:
    init = [sidecar("one", image), {"name": "init", "image": image, "args": ["print", "x"]}, sidecar("two", image)]
    pod = pod_of("sleep", "1000", image=image, spec={"initContainers": init})
    key = await timed.create(pod)
    await timed.running(key)
    status = await timed.provider.pod_status(key)
    assert [type(s.state) for s in status.init_containers] == [Running, Terminated, Running]
    assert [s.is_ready for s in status.init_containers] == [True, True, True]
    assert phase_of(pod, status) == "Running"
    assert conditions(timed, pod, status)["Ready"] == "True"
    final = await timed.provider.delete_pod(key, 30)
    assert final is not None
    ends = {s.name: s.state for s in (*final.init_containers, *final.containers)}
    times = []
    for name in ("main", "two", "one"):
        state = ends[name]
        assert isinstance(state, Terminated)
        assert state.exit_code == 143
        times.append(state.finished_at)
    assert times == sorted(times)  # type: ignore[type-var]


async def test_a_job_with_a_sidecar_is_done_when_its_main_container_is(timed: Runtime, image: str) -> None:
    pod = pod_of("print", "done", image=image, spec={"initContainers": [sidecar("side", image)]})
    key = await timed.create(pod)
    status = await timed.until(key, lambda s: phase_of(pod, s) == "Succeeded")
    ended = status.init_containers[0].state
    assert isinstance(ended, Terminated)
    assert ended.exit_code == 143
    assert status.init_containers[0].restart_count == 0
    assert (await timed.event(key, "Killing")).container_field == "spec.initContainers{side}"


async def test_a_sidecar_is_restarted_whatever_the_pods_policy(timed: Runtime, image: str) -> None:
    pod = pod_of("sleep", "1000", image=image, spec={"initContainers": [sidecar("side", image, "exit", "0")]})
    key = await timed.create(pod)
    await timed.waiting(key, "CrashLoopBackOff", "side")
    await timed.running(key)
    assert phase_of(pod, await timed.provider.pod_status(key)) == "Running"


async def test_a_startup_probe_of_a_sidecar_holds_up_what_comes_next(scripted: Runtime, image: str) -> None:
    script = script_of(scripted)
    script.codes["up"] = 1
    side = sidecar("side", image, startupProbe=probe("up", periodSeconds=1, failureThreshold=100))
    pod = pod_of("sleep", "1000", image=image, spec={"initContainers": [side]})
    key = await scripted.create(pod)
    await script.until_asked("up")
    scripted.fake_clock.advance(1)
    await script.until_asked("up", 2)
    status = await scripted.provider.pod_status(key)
    assert isinstance(status.init_containers[0].state, Running)
    assert not status.init_containers[0].is_started
    assert status.containers[0].state == Waiting("PodInitializing")
    assert phase_of(pod, status) == "Pending"
    assert conditions(scripted, pod, status)["Initialized"] == "False"
    script.codes["up"] = 0
    scripted.fake_clock.advance(1)
    await scripted.running(key)
    status = await scripted.provider.pod_status(key)
    assert status.init_containers[0].is_started
    assert conditions(scripted, pod, status)["Initialized"] == "True"


async def test_an_unready_sidecar_makes_the_pod_unready(scripted: Runtime, image: str) -> None:
    script_of(scripted).codes["ready"] = 1
    pod = pod_of(
        "sleep", "1000", image=image, spec={"initContainers": [sidecar("side", image, readinessProbe=probe("ready"))]}
    )
    key = await scripted.create(pod)
    await scripted.running(key)
    await scripted.event(key, "Unhealthy", "Readiness probe failed")
    found = conditions(scripted, pod, await scripted.provider.pod_status(key))
    assert (found["Initialized"], found["ContainersReady"]) == ("True", "False")


async def test_an_init_container_that_fails_for_good_ends_the_sidecars(timed: Runtime, image: str) -> None:
    init = [sidecar("side", image), {"name": "init", "image": image, "args": ["exit", "3"]}]
    pod = pod_of("print", "x", image=image, spec={"initContainers": init})
    key = await timed.create(pod)
    status = await timed.until(key, lambda s: isinstance(s.init_containers[0].state, Terminated))
    assert phase_of(pod, status) == "Failed"
    assert status.containers[0].state == Waiting("PodInitializing")


async def test_an_init_container_is_tried_again(timed: Runtime, image: str) -> None:
    init = [{"name": "init", "image": image, "args": ["exit", "3"]}]
    pod = pod_of("print", "x", image=image, restart="Always", spec={"initContainers": init})
    key = await timed.create(pod)
    await timed.waiting(key, "CrashLoopBackOff", "init")
    event = await timed.event(key, "BackOff")
    assert event.container_field == "spec.initContainers{init}"
    assert phase_of(pod, await timed.provider.pod_status(key)) == "Pending"


@pytest.mark.parametrize("quiet", [announce_compile.QUIET_SECONDS, 0.0])
async def test_main_containers_start_in_order(
    scripted: Runtime, image: str, quiet: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A postStart hook of the first holds up the second, as at a kubelet; also where the first is compiled for long."""
    monkeypatch.setattr(announce_compile, "QUIET_SECONDS", quiet)
    script = script_of(scripted)
    script.held.add("hook")
    hook = {"postStart": {"exec": {"command": ["hook"]}}}
    first = {"name": "first", "image": image, "args": ["sleep", "1000"], "lifecycle": hook}
    second = {"name": "second", "image": image, "args": ["sleep", "1000"]}
    key = await scripted.create(pod_of(spec={"containers": [first, second]}))
    await script.until_asked("hook")
    status = await scripted.provider.pod_status(key)
    assert [s.state for s in status.containers] == [Waiting("ContainerCreating")] * 2
    assert not [event for event in scripted.events if event.container_field == "spec.containers{second}"]
    await script.release("hook")
    await scripted.running(key, "first")
    await scripted.running(key, "second")


async def test_one_that_cannot_be_pulled_holds_up_nobody(timed: Runtime, image: str) -> None:
    containers = [
        {"name": "absent", "image": "file:///absent.wasm"},
        {"name": "there", "image": image, "args": ["print", "x"]},
    ]
    key = await timed.create(pod_of(spec={"containers": containers}))
    assert (await timed.ended(key, "there")).exit_code == 0
    await timed.waiting(key, "ErrImagePull", "absent")


async def test_ephemeral_containers(timed: Runtime, image: str) -> None:
    base = pod_of("sleep", "1000", image=image)
    key = await timed.create(base)
    main = await timed.running(key)
    debug = [{"name": "one", "image": image, "args": ["exit", "7"], "targetContainerName": "main"}]
    await timed.provider.update_pod(pod_of("sleep", "1000", image=image, spec={"ephemeralContainers": debug}), Inputs())
    assert (await timed.ended(key, "one")).exit_code == 7
    debug.append({"name": "two", "image": image, "args": ["print", "x", "sleep", "1000"]})
    pod = pod_of("sleep", "1000", image=image, spec={"ephemeralContainers": debug})
    await timed.provider.update_pod(pod, Inputs())
    await timed.running(key, "two")
    assert await timed.logged(key, b"x", "two") == b"x\n"
    status = await timed.provider.pod_status(key)
    assert [s.name for s in status.ephemeral_containers] == ["one", "two"]
    assert status.ephemeral_containers[0].restart_count == 0
    assert not status.ephemeral_containers[1].is_ready
    assert status.containers[0] == main
    assert phase_of(pod, status) == "Running"
    assert (await timed.event(key, "Started", "two")).container_field == "spec.ephemeralContainers{two}"
    # They end with the pod, and are found again by another node loop.
    await timed.restart()
    await timed.create(pod)
    assert isinstance((await timed.running(key, "two")).state, Running)
    final = await timed.provider.delete_pod(key, 30)
    assert final is not None
    states = [s.state for s in final.ephemeral_containers]
    assert [s.exit_code for s in states if isinstance(s, Terminated)] == [7, 143]


async def test_an_ephemeral_container_does_not_keep_a_pod_running(
    timed: Runtime, image: str, driver: Path, tmp_path: Path
) -> None:
    later = tmp_path / "later.wasm"
    spec = {"ephemeralContainers": [{"name": "debug", "image": image, "args": ["sleep", "1000"]}]}
    key = await timed.create(pod_of("print", "x", image=f"file://{later}", spec=spec))
    await timed.running(key, "debug")
    await timed.waiting(key, "ErrImagePull")
    shutil.copy(driver, later)
    timed.fake_clock.advance(10)
    await timed.waiting(key, "ImagePullBackOff")
    timed.fake_clock.advance(10)
    assert (await timed.ended(key)).exit_code == 0
    ended = await timed.ended(key, "debug")
    assert ended.exit_code == 143


async def test_another_node_loop_goes_on_where_the_last_one_was(timed: Runtime, image: str) -> None:
    init = [sidecar("side", image), {"name": "init", "image": image, "args": ["print", "once"]}]
    pod = pod_of("sleep", "1000", image=image, spec={"initContainers": init})
    key = await timed.create(pod)
    await timed.running(key)
    before = await timed.provider.pod_status(key)
    await timed.restart()
    (record,) = await timed.provider.list_pods()
    assert [s.name for s in record.status.init_containers] == ["side", "init"]
    await timed.create(pod)
    after = await timed.until(key, lambda s: s.containers[0].is_ready and s.init_containers[0].is_started)
    assert [s.container_id for s in (*after.init_containers, *after.containers)] == [
        s.container_id for s in (*before.init_containers, *before.containers)
    ]
    assert await timed.log(key, "init") == b"once\n"


async def test_the_order_of_the_end_outlives_the_node_loop(timed: Runtime, image: str) -> None:
    """A pod that is deleted before its manifest was handed over again: the records say which container is a sidecar."""
    pod = pod_of("sleep", "1000", image=image, spec={"initContainers": [sidecar("side", image)]})
    key = await timed.create(pod)
    await timed.running(key)
    await timed.restart()
    final = await timed.provider.delete_pod(key, 30)
    assert final is not None
    main, side = final.containers[0].state, final.init_containers[0].state
    assert isinstance(main, Terminated)
    assert isinstance(side, Terminated)
    assert main.finished_at is not None
    assert side.finished_at is not None
    assert main.finished_at <= side.finished_at


DEADLINE = "Pod was active on the node longer than the specified deadline"


async def failed(runtime: Runtime, key: PodKey) -> PodStatus:
    status = await runtime.until(key, lambda s: s.phase == "Failed")
    assert (status.reason, status.message) == ("DeadlineExceeded", DEADLINE)
    return status


@pytest.mark.parametrize("policy", ["Always", "Never"])
async def test_an_active_deadline(timed: Runtime, image: str, policy: str) -> None:
    init = [sidecar("side", image)]
    spec = {"activeDeadlineSeconds": 60, "initContainers": init}
    key = await timed.create(pod_of("sleep", "1000", image=image, restart=policy, spec=spec))
    await timed.running(key)
    timed.fake_clock.advance(55)
    assert (await timed.provider.pod_status(key)).phase is None
    timed.fake_clock.advance(6)
    status = await failed(timed, key)
    for container in (*status.containers, *status.init_containers):
        assert isinstance(container.state, Terminated)
        assert container.state.exit_code == 143
    assert (await timed.event(key, "DeadlineExceeded")).message == DEADLINE


async def test_an_active_deadline_that_is_set_later(timed: Runtime, image: str) -> None:
    key = await timed.create(pod_of("sleep", "1000", image=image, spec={"activeDeadlineSeconds": 1000}))
    await timed.running(key)
    timed.fake_clock.advance(100)
    pod = pod_of("sleep", "1000", image=image, spec={"activeDeadlineSeconds": 50})
    await timed.provider.update_pod(pod, Inputs())
    await failed(timed, key)


async def test_an_active_deadline_counts_from_the_start_time_that_the_api_has(timed: Runtime, image: str) -> None:
    pod = pod_of("sleep", "1000", image=image, spec={"activeDeadlineSeconds": 60})
    began = timed.fake_clock.now().isoformat(timespec="seconds").replace("+00:00", "Z")
    key = await timed.create(pod)
    await timed.running(key)
    await timed.stop()
    timed.fake_clock.advance(100)
    await timed.start()
    await timed.create(Pod({**pod.raw, "status": {"startTime": began}}))
    await failed(timed, key)


async def test_a_deadline_ends_a_pod_that_never_started(timed: Runtime) -> None:
    pod = pod_of(image="file:///absent.wasm", spec={"activeDeadlineSeconds": 60})
    key = await timed.create(pod)
    await timed.waiting(key, "ErrImagePull")
    timed.fake_clock.advance(61)
    await failed(timed, key)
    await timed.provider.delete_pod(key, 0)
    provider = timed.provider
    lasting = {asyncio.current_task(), timed._reader, provider.services.client._keeper, provider._collector}
    assert not asyncio.all_tasks() - lasting
