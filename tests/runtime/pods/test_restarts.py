"""When containers are started again: the kubelet's back-off, restart policies and rules, and changes of an image."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.runtime.harness import Runtime, pod_of
from wasmlet.model.inputs import Inputs
from wasmlet.model.status import Running, Terminated, Waiting
from wasmlet.runtime.pods.restarts import pauses


async def test_restarts_with_the_kubelets_back_off(timed: Runtime, image: str) -> None:
    key = await timed.create(pod_of("print", "again", "exit", "1", image=image, restart="Always"))
    message = "back-off {} restarting failed container=main pod=web_default(uid-of-web)"
    for count, (pause, text) in enumerate(((10, "10s"), (20, "20s"), (40, "40s"), (80, "1m20s"), (160, "2m40s"))):
        # The first restart comes at once, so the first back-off is seen after the second end.
        status = await timed.main(key, lambda s, n=count: s.restart_count == n + 1 and _crashed(s.state))  # type: ignore[misc]
        assert isinstance(status.state, Waiting)
        assert status.state.message == message.format(text)
        assert status.last_state is not None
        assert (status.last_state.exit_code, status.last_state.reason) == (1, "Error")
        left = await timed.fake_clock.next_sleep()
        assert pause - 5 < left <= pause
        assert not status.is_ready
        timed.fake_clock.advance(left)
    events = [event for event in timed.events if event.reason == "BackOff"]
    assert events[0].message == "Back-off restarting failed container main in pod web_default(uid-of-web)"
    assert events[0].type == "Warning"
    # The last two instances are kept, with their logs; older ones are not.
    await timed.main(key, lambda s: s.restart_count == 6 and _crashed(s.state))
    assert await timed.log(key, previous=True) == b"again\n"
    files = sorted(path.name for path in timed.state_dir.rglob("logs/**/*.log"))
    assert files == ["uid-of-web,main.5.log", "uid-of-web,main.6.log"]
    assert len(timed.provider.services.client.records) == 2


def _crashed(state: object) -> bool:
    return isinstance(state, Waiting) and state.reason == "CrashLoopBackOff"


@pytest.mark.parametrize(
    ("backoff", "ran", "expected"),
    [(0, 1, (0, 10)), (10, 1, (10, 20)), (160, 1, (160, 300)), (300, 599, (300, 300)), (300, 600, (0, 10))],
)
def test_pauses(backoff: float, ran: float, expected: tuple[float, float]) -> None:
    assert pauses(backoff, ran) == expected


@pytest.mark.parametrize(
    ("cap", "backoff", "expected"),
    [(300, 0, (0, 10)), (5, 0, (0, 5)), (5, 5, (5, 5)), (1, 300, (1, 1)), (30, 20, (20, 30))],
)
def test_the_longest_pause_is_configured(cap: float, backoff: float, expected: tuple[float, float]) -> None:
    assert pauses(backoff, 1, cap) == expected


async def test_restarts_and_their_pause_outlive_the_node_loop(timed: Runtime, image: str) -> None:
    pod = pod_of("exit", "1", image=image, restart="Always")
    key = await timed.create(pod)
    await timed.main(key, lambda s: s.restart_count == 1 and _crashed(s.state))
    await timed.restart()
    await timed.create(pod)
    waiting = await timed.waiting(key, "CrashLoopBackOff")
    assert waiting.message.startswith("back-off 10s ")
    timed.fake_clock.advance(await timed.fake_clock.next_sleep())
    status = await timed.main(key, lambda s: s.restart_count == 2 and _crashed(s.state))
    assert isinstance(status.state, Waiting)
    assert status.state.message.startswith("back-off 20s ")
    assert status.last_state is not None


async def test_restart_rules(timed: Runtime, image: str) -> None:
    rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
    again = {
        "name": "again",
        "image": image,
        "args": ["exit", "42"],
        "restartPolicy": "Never",
        "restartPolicyRules": rules,
    }
    once = {
        "name": "once",
        "image": image,
        "args": ["exit", "3"],
        "restartPolicy": "Never",
        "restartPolicyRules": rules,
    }
    key = await timed.create(pod_of(restart="Always", spec={"containers": [again, once]}))
    await timed.waiting(key, "CrashLoopBackOff", "again")
    ended = await timed.main(key, lambda s: isinstance(s.state, Terminated), "once")
    assert ended.restart_count == 0


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [("Always", 0, True), ("Always", 1, True), ("OnFailure", 1, True), ("OnFailure", 0, False), ("Never", 1, False)],
)
async def test_restart_policies(timed: Runtime, image: str, policy: str, code: int, again: bool) -> None:
    key = await timed.create(pod_of("exit", str(code), image=image, restart=policy))
    if again:
        status = await timed.main(key, lambda s: s.restart_count == 1 and s.last_state is not None)
        assert status.last_state is not None
        assert status.last_state.exit_code == code
    else:
        assert (await timed.ended(key)).exit_code == code
        (task,) = timed.provider._tasks or (None,)
        if task is not None:
            await task  # the pod's life is over, nothing waits for a restart
        assert (await timed.provider.pod_status(key)).containers[0].restart_count == 0


async def test_a_change_of_image_starts_the_container_anew(runtime: Runtime, driver: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.wasm"
    shutil.copy(driver, other)
    key = await runtime.create(pod_of("args", "sleep", "1000", image=f"file://{driver}"))
    await runtime.logged(key, b"driver.wasm\n")
    await runtime.provider.update_pod(pod_of("args", "sleep", "1000", image=f"file://{other}"), Inputs())
    status = await runtime.main(key, lambda s: s.restart_count == 1 and isinstance(s.state, Running))
    assert status.image == f"file://{other}"
    assert (await runtime.event(key, "Killing")).message == "Container main definition changed, will be restarted"
    await runtime.logged(key, b"other.wasm\n")
    assert (await runtime.log(key, previous=True)).startswith(b"driver.wasm\n")
