"""Pods that outgrow a limit of disk are evicted, in the kubelet's words; the others are left alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.files.test_volumes import mounts, with_volume
from tests.runtime.harness import Runtime, pod_of
from wasmlet.model.pod import Pod
from wasmlet.model.status import Running, Terminated
from wasmlet.runtime.pods import eviction
from wasmlet.runtime.pods.eviction import PERIOD


async def evicted(timed: Runtime, pod: Pod, said: bytes) -> str:
    """The message that the pod is evicted with, once its guest has said this."""
    key = await timed.create(pod)
    await timed.logged(key, said)
    assert await timed.fake_clock.next_sleep() == PERIOD
    timed.fake_clock.advance(PERIOD)
    status = await timed.until(key, lambda status: status.phase == "Failed")
    assert status.reason == "Evicted"
    state = status.containers[0].state
    assert isinstance(state, Terminated)
    assert state.exit_code == 137
    event = await timed.event(key, "Evicted")
    assert (event.type, event.message) == ("Warning", status.message)
    return status.message


async def test_an_empty_dir_that_grows_too_big(timed: Runtime, image: str) -> None:
    source = {"emptyDir": {"sizeLimit": "1Mi"}}
    pod = with_volume("fill", "/v/x", "2000", "sleep", "1000", image=image, source=source, restart="Always")
    message = await evicted(timed, pod, b"fill /v/x: ok\n")
    assert message == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '


async def test_an_empty_dir_that_is_too_deep_to_be_measured(timed: Runtime, image: str) -> None:
    source = {"emptyDir": {"sizeLimit": "1Gi"}}
    pod = with_volume("deep", "/v", "600", "sleep", "1000", image=image, source=source)
    message = await evicted(timed, pod, b"deep /v: ok\n")
    assert message == 'Usage of EmptyDir volume "v" exceeds the limit "1Gi". '


async def test_an_empty_dir_within_its_limit(timed: Runtime, image: str) -> None:
    source = {"emptyDir": {"sizeLimit": "1Mi"}}
    key = await timed.create(
        with_volume("fill", "/v/x", "500", "sleep", "1000", image=image, source=source, name="small")
    )
    await timed.logged(key, b"ok\n")
    for _ in range(3):
        assert await timed.fake_clock.next_sleep() == PERIOD
        timed.fake_clock.advance(PERIOD)
    assert isinstance((await timed.running(key)).state, Running)


def limited_to(limit: str, **more: Any) -> Any:
    limits = {"limits": {"ephemeral-storage": limit}} if limit else {}
    return {"name": f"c{limit}{len(more)}".lower(), "resources": limits, **more}


@pytest.mark.parametrize(
    ("init", "mains", "overhead", "total"),
    [
        ([], ["1Mi", "", "2Mi"], {}, 3),
        ([limited_to("7Mi")], ["1Mi", "2Mi"], {}, 7),
        ([limited_to("2Mi", restartPolicy="Always"), limited_to("4Mi")], ["1Mi"], {}, 6),
        ([limited_to("2Mi", restartPolicy="Always"), limited_to("1Mi")], ["3Mi"], {}, 5),
        ([limited_to("2Mi")], [""], {"ephemeral-storage": "1Mi"}, 3),
        ([], [""], {"ephemeral-storage": "1Mi"}, 0),
    ],
)
def test_the_limit_of_a_pod(init: list[Any], mains: list[str], overhead: dict[str, str], total: int) -> None:
    spec = {"initContainers": init, "containers": [limited_to(limit) for limit in mains], "overhead": overhead}
    assert eviction._total_limit(pod_of(spec=spec)) == total * 1024 * 1024


TOTAL = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "
ALONE = 'Container main exceeded its local ephemeral storage limit "1Mi". '
LIMIT = {"resources": {"limits": {"ephemeral-storage": "1Mi"}}}


@pytest.mark.parametrize(
    ("script", "said", "containers", "message"),
    [
        (("fill", "/dev/x", "2000"), b"ok\n", 1, TOTAL),
        (("fill", "/v/x", "2000"), b"ok\n", 1, TOTAL),
        (("flood", "30000", "print", "done"), b"done\n", 2, ALONE),
    ],
    ids=["beside its volumes", "in a volume", "in its log"],
)
async def test_ephemeral_storage(
    timed: Runtime, image: str, script: tuple[str, ...], said: bytes, containers: int, message: str
) -> None:
    made: list[dict[str, Any]] = [
        {"name": "main", "image": image, "args": [*script, "sleep", "1000"], "volumeMounts": mounts(), **LIMIT},
        {"name": "other", "image": image, "args": ["sleep", "1000"],
         "resources": {"limits": {"ephemeral-storage": "1Gi"}}},
    ]  # fmt: skip
    spec = {"containers": made[:containers], "volumes": [{"name": "v", "emptyDir": {}}]}
    assert await evicted(timed, pod_of(spec=spec), said) == message
