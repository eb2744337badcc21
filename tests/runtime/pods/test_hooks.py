"""postStart and preStop, by command and by pause, and the grace period that all of an end has to fit in."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

import pytest

from tests.runtime.harness import Runtime, pod_of
from tests.runtime.pods.scripted import script_of
from wasmlet.errors import Refused
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import PodKey
from wasmlet.model.status import PodStatus, Running, Terminated, Waiting
from wasmlet.runtime.pods import manifest


def command(word: str) -> dict[str, Any]:
    return {"exec": {"command": [word]}}


def hooked(image: str, *args: str, restart: str = "Never", spec: Any = None, **hooks: Any) -> Any:
    return pod_of(*(args or ("sleep", "1000")), image=image, restart=restart, spec=spec, lifecycle=hooks)


def exit_code(status: PodStatus | None, name: str = "main") -> int:
    assert status is not None
    found = status.container(name)
    assert found is not None
    assert isinstance(found.state, Terminated)
    return found.state.exit_code


@pytest.mark.parametrize("hook", ["postStart", "preStop"])
@pytest.mark.parametrize("kind", ["httpGet", "tcpSocket"])
def test_hooks_over_a_network_are_refused_by_name(hook: str, kind: str) -> None:
    with pytest.raises(Refused) as refused:
        manifest.check(pod_of(image="file:///x.wasm", lifecycle={hook: {kind: {"port": 80}}}))
    why = {
        "httpGet": "pods have no network on this node (--network); expected exec or sleep",
        "tcpSocket": "no kubelet runs such a hook; expected exec, httpGet or sleep",
    }[kind]
    assert str(refused.value) == f"spec.containers[0].lifecycle.{hook}.{kind}: {why}"


def test_a_signal_to_stop_with_is_refused() -> None:
    with pytest.raises(Refused, match="takes no signals"):
        manifest.check(hooked("file:///x.wasm", stopSignal="SIGUSR1"))
    manifest.check(hooked("file:///x.wasm", stopSignal="SIGTERM"))


async def test_post_start_comes_before_running(scripted: Runtime, image: str) -> None:
    script = script_of(scripted)
    script.held.add("begin")
    key = await scripted.create(hooked(image, postStart=command("begin")))
    await script.until_asked("begin")
    await scripted.event(key, "Started")
    status = (await scripted.provider.pod_status(key)).containers[0]
    assert status.state == Waiting("ContainerCreating")
    await script.release("begin")
    assert (await scripted.running(key)).is_ready


async def test_post_start_that_pauses(scripted: Runtime, image: str) -> None:
    key = await scripted.create(hooked(image, postStart={"sleep": {"seconds": 100}}))
    assert await scripted.fake_clock.next_sleep() == 100
    assert (await scripted.provider.pod_status(key)).containers[0].state == Waiting("ContainerCreating")
    scripted.fake_clock.advance(100)
    await scripted.running(key)


async def test_post_start_that_fails(scripted: Runtime, image: str) -> None:
    script = script_of(scripted)
    script.codes["begin"] = 3
    key = await scripted.create(hooked(image, restart="Always", postStart=command("begin")))
    event = await scripted.event(key, "FailedPostStartHook")
    assert (event.type, event.message) == ("Warning", "PostStartHook failed")
    assert (await scripted.event(key, "Killing")).message == "FailedPostStartHook"
    await scripted.main(key, lambda s: s.restart_count == 1 and s.state != Waiting("ContainerCreating"))
    waiting = await scripted.waiting(key, "PostStartHookError")
    assert waiting.message == (
        'Exec lifecycle hook ([\'begin\']) for Container "main" in Pod "web_default(uid-of-web)" failed - '
        "error: command 'begin' exited with 3, message: 'begin says 3'"
    )
    status = (await scripted.provider.pod_status(key)).containers[0]
    assert status.last_state is not None
    assert status.last_state.exit_code == 143
    scripted.fake_clock.advance(await scripted.fake_clock.next_sleep())
    await scripted.waiting(key, "CrashLoopBackOff")
    script.codes["begin"] = 0
    scripted.fake_clock.advance(await scripted.fake_clock.next_sleep())
    assert (await scripted.running(key)).restart_count == 2


async def test_post_start_that_fails_under_never(scripted: Runtime, image: str) -> None:
    script_of(scripted).broken.add("begin")
    key = await scripted.create(hooked(image, postStart=command("begin")))
    ended = await scripted.ended(key)
    assert (ended.exit_code, ended.reason) == (143, "Error")


async def test_a_guest_that_ends_before_post_start_is_over(scripted: Runtime, image: str) -> None:
    script_of(scripted).held.add("begin")
    key = await scripted.create(hooked(image, "exit", "7", postStart=command("begin")))
    assert (await scripted.ended(key)).exit_code == 7
    await scripted.event(key, "FailedPostStartHook")


async def test_post_start_is_not_repeated_by_another_node_loop(scripted: Runtime, image: str) -> None:
    pod = hooked(image, postStart=command("begin"))
    key = await scripted.create(pod)
    await scripted.running(key)
    await scripted.restart()
    await scripted.create(pod)
    await scripted.main(key, lambda s: s.is_started)
    assert script_of(scripted).asked["begin"] == 1


async def delete(runtime: Runtime, key: PodKey, grace: float) -> PodStatus | None:
    return await runtime.provider.delete_pod(key, grace)


async def test_pre_stop_comes_before_the_end(scripted: Runtime, image: str) -> None:
    script = script_of(scripted)
    script.held.add("stop")
    key = await scripted.create(hooked(image, preStop=command("stop")))
    await scripted.running(key)
    ending = asyncio.create_task(delete(scripted, key, 30))
    await script.until_asked("stop")
    assert isinstance((await scripted.running(key)).state, Running)
    assert (await scripted.event(key, "Killing")).message == "Stopping container main"
    await script.release("stop")
    assert exit_code(await ending) == 143


async def test_pre_stop_has_the_grace_period_and_no_more(scripted: Runtime, image: str) -> None:
    script = script_of(scripted)
    script.held.add("stop")
    key = await scripted.create(hooked(image, preStop=command("stop")))
    await scripted.running(key)
    ending = asyncio.create_task(delete(scripted, key, 30))
    await script.until_asked("stop")
    assert await scripted.fake_clock.next_sleep() == 30
    scripted.fake_clock.advance(30)
    assert exit_code(await ending) == 143
    assert script.cancelled == ["stop"]


async def test_pre_stop_that_pauses(scripted: Runtime, image: str) -> None:
    key = await scripted.create(hooked(image, preStop={"sleep": {"seconds": 20}}))
    await scripted.running(key)
    ending = asyncio.create_task(delete(scripted, key, 30))
    assert await scripted.fake_clock.next_sleep() == 20
    scripted.fake_clock.advance(20)
    assert exit_code(await ending) == 143


async def test_pre_stop_that_fails(scripted: Runtime, image: str) -> None:
    script_of(scripted).codes["stop"] = 1
    key = await scripted.create(hooked(image, preStop=command("stop")))
    await scripted.running(key)
    assert exit_code(await delete(scripted, key, 30)) == 143
    event = await scripted.event(key, "FailedPreStopHook")
    assert (event.type, event.message) == ("Warning", "PreStopHook failed")


async def test_no_pre_stop_without_grace(scripted: Runtime, image: str) -> None:
    key = await scripted.create(hooked(image, preStop=command("stop")))
    await scripted.running(key)
    assert exit_code(await delete(scripted, key, 0)) == 137
    assert script_of(scripted).asked["stop"] == 0


@pytest.mark.parametrize(("shorter", "code"), [(5, 143), (0, 137)])
async def test_a_grace_period_is_shortened(scripted: Runtime, image: str, shorter: float, code: int) -> None:
    """A call that is given up goes on as it was, and a shorter one hurries it; the hook is not begun again."""
    script = script_of(scripted)
    script.held.add("stop")
    key = await scripted.create(hooked(image, preStop=command("stop")))
    await scripted.running(key)
    first = asyncio.create_task(delete(scripted, key, 3600))
    await script.until_asked("stop")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert isinstance((await scripted.running(key)).state, Running)
    second = asyncio.create_task(delete(scripted, key, shorter))
    if shorter:
        await scripted.fake_clock.next_sleep(at_most=shorter)
        scripted.fake_clock.advance(shorter)
    assert exit_code(await second) == code
    assert script.asked["stop"] == 1
    assert [e.reason for e in scripted.events if e.reason == "Killing"] == ["Killing"]


async def test_hooks_of_all_containers_run_at_once_and_sidecars_end_last(scripted: Runtime, image: str) -> None:
    script = script_of(scripted)
    script.held |= {"stop-main", "stop-side"}
    side = {
        "name": "side", "image": image, "args": ["sleep", "1000"], "restartPolicy": "Always",
        "lifecycle": {"preStop": command("stop-side")},
    }  # fmt: skip
    key = await scripted.create(hooked(image, spec={"initContainers": [side]}, preStop=command("stop-main")))
    await scripted.running(key)
    ending = asyncio.create_task(delete(scripted, key, 30))
    await script.until_asked("stop-main")
    await script.until_asked("stop-side")
    await script.release("stop-side")
    assert isinstance((await scripted.running(key, "side")).state, Running)
    await script.release("stop-main")
    final = await ending
    assert (exit_code(final), exit_code(final, "side")) == (143, 143)


async def test_a_change_of_image_runs_the_hooks_too(scripted: Runtime, image: str, driver: Any, tmp_path: Any) -> None:

    other = tmp_path / "other.wasm"
    shutil.copy(driver, other)
    key = await scripted.create(hooked(image, preStop=command("stop"), postStart=command("begin")))
    first = await scripted.main(key, lambda s: isinstance(s.state, Running))
    await scripted.provider.update_pod(
        hooked(f"file://{other}", preStop=command("stop"), postStart=command("begin")), Inputs()
    )
    # Until the new instance has begun, the one that makes way for it is shown.
    await scripted.main(key, lambda s: s.restart_count == 1 and isinstance(s.state, Running) and s.state != first.state)
    assert (script_of(scripted).asked["stop"], script_of(scripted).asked["begin"]) == (1, 2)
