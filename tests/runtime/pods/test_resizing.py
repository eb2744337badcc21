"""In-place resize (KEP-1287): what is taken over, what restarts a container, what waits and what is not possible."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.runtime.harness import Runtime, pod_of
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Container, Pod
from wasmlet.model.status import Condition, PodStatus, Running
from wasmlet.node.pods.status import api_status, patch_of
from wasmlet.runtime.resizing import amounts, changed, needs_restart, total, verdict

RESTART = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]


def resources(cpu: str, memory: str, limit: str | None = None) -> dict[str, Any]:
    requests = {"cpu": cpu, "memory": memory}
    return {"requests": requests, "limits": {"memory": limit}} if limit else {"requests": requests}


def container(given: dict[str, Any], **fields: Any) -> Container:
    return Container({"name": "c", "resources": given, **fields}, "spec.containers[0]")


def test_what_has_changed() -> None:
    assert changed(resources("1", "1Gi"), resources("1000m", "1024Mi")) == frozenset()
    assert changed(resources("1", "1Gi"), resources("2", "1Gi")) == {"cpu"}
    assert changed(resources("1", "1Gi"), resources("1", "1Gi", "2Gi")) == {"memory"}
    assert changed({}, resources("1", "1Gi")) == {"cpu", "memory"}


def test_a_policy_of_restart_is_for_its_resource() -> None:
    before, after = resources("1", "1Gi"), resources("2", "1Gi")
    assert not needs_restart(container(after, resizePolicy=RESTART), before, after)
    after = resources("1", "2Gi")
    assert needs_restart(container(after, resizePolicy=RESTART), before, after)
    assert not needs_restart(container(after), before, after)


def asked_for(
    cpu: str, memory: str, used: str = "0", limit: str | None = None, live: Sequence[str] = (), **fields: Any
) -> Condition | None:
    wanted = container(resources(cpu, memory, limit), **fields)
    capacity = {"cpu": Decimal(2), "memory": Decimal(4 << 30)}
    others = {"cpu": Decimal(used), "memory": Decimal(0)}
    return verdict([(wanted, resources("1", "1Gi"))], total([wanted.resources]), others, capacity, live)


def test_verdicts() -> None:
    assert asked_for("2", "4Gi") is None
    assert asked_for("3", "1Gi") == Condition(
        "PodResizePending", "True", "Infeasible", "Node didn't have enough capacity: cpu, requested: 3000, total: 2000"
    )
    assert asked_for("2", "1Gi", used="0.5") == Condition(
        "PodResizePending",
        "True",
        "Deferred",
        "Node didn't have enough resource: cpu, requested: 2000, used: 500, capacity: 2000",
    )
    pending = asked_for("1", "1Gi", limit="2Gi")
    assert pending is not None
    assert pending.reason == "Infeasible"
    assert pending.message.startswith("spec.containers[0].resources.limits.memory: ")
    assert asked_for("1", "1Gi", limit="2Gi", resizePolicy=RESTART) is None
    assert asked_for("1", "1Gi", limit="2Gi", live=("c",)) is None


def test_amounts() -> None:
    assert amounts({"limits": {"cpu": "1500m", "memory": "1Ki", "example.com/x": "3"}}, "limits") == {
        "cpu": Decimal("1.5"),
        "memory": Decimal(1024),
    }


def running_pod(image: str, given: dict[str, Any], *args: str, **fields: Any) -> Pod:
    return pod_of(*(args or ("sleep", "1000")), image=image, restart="Always", resources=given, **fields)


async def test_cpu_and_requests_are_taken_over(timed: Runtime, image: str) -> None:
    key = await timed.create(running_pod(image, resources("100m", "1Mi")))
    before = await timed.running(key)
    assert before.resources == resources("100m", "1Mi")
    await timed.provider.update_pod(running_pod(image, resources("200m", "2Mi")), Inputs())
    status = await timed.until(key, lambda s: s.conditions == () and s.containers[0].resources != before.resources)
    after = status.containers[0]
    assert (after.resources, after.allocated) == (resources("200m", "2Mi"), {"cpu": "200m", "memory": "2Mi"})
    assert (after.container_id, after.restart_count) == (before.container_id, 0)
    assert status.conditions == ()


async def test_memory_restarts_a_container_that_asks_for_it(ungrouped: Runtime, image: str) -> None:
    work = ("alloc", "40", "print", "up", "sleep", "1000")
    key = await ungrouped.create(running_pod(image, resources("1m", "1Mi", "32Mi"), *work, resizePolicy=RESTART))
    assert await ungrouped.logged(key, b"up\n") == b"no memory\nup\n"
    await ungrouped.provider.update_pod(
        running_pod(image, resources("1m", "1Mi", "128Mi"), *work, resizePolicy=RESTART), Inputs()
    )
    assert (await ungrouped.provider.pod_status(key)).conditions == (Condition("PodResizeInProgress", "True"),)
    await ungrouped.main(key, lambda s: s.restart_count == 1 and isinstance(s.state, Running))
    assert (await ungrouped.event(key, "Killing")).message == "Container main resize requires restart"
    assert await ungrouped.logged(key, b"up\n") == b"40 MiB\nup\n"
    assert (await ungrouped.provider.pod_status(key)).conditions == ()


async def test_memory_that_the_engine_holds_cannot_be_changed(ungrouped: Runtime, image: str) -> None:
    old, new = resources("1m", "1Mi", "64Mi"), resources("2m", "1Mi", "128Mi")
    key = await ungrouped.create(running_pod(image, old))
    await ungrouped.running(key)
    pod = running_pod(image, new)
    await ungrouped.provider.update_pod(pod, Inputs())
    status = await ungrouped.provider.pod_status(key)
    assert [(c.type, c.reason) for c in status.conditions] == [("PodResizePending", "Infeasible")]
    assert status.containers[0].resources == old  # all of a pod or nothing
    # Another node loop knows from the API what the container was given.
    api = {"name": "main", "containerID": status.containers[0].container_id, "resources": old, "started": True}
    await ungrouped.restart()
    await ungrouped.create(Pod({**pod.raw, "status": {"containerStatuses": [api]}}))
    status = await ungrouped.provider.pod_status(key)
    assert [(c.type, c.reason) for c in status.conditions] == [("PodResizePending", "Infeasible")]
    assert status.containers[0].resources == old
    await ungrouped.provider.update_pod(running_pod(image, old), Inputs())
    assert (await ungrouped.provider.pod_status(key)).conditions == ()


async def test_a_resize_waits_for_room(timed: Runtime, image: str) -> None:
    whole = timed.provider.services.capacity["cpu"]
    half = resources(f"{int(whole * 500)}m", "1Mi")
    other = await timed.create(
        pod_of("sleep", "1000", name="other", image=image, resources=resources(f"{int(whole * 400)}m", "1Mi"))
    )
    key = await timed.create(running_pod(image, half))
    await timed.running(key)
    await timed.provider.update_pod(running_pod(image, resources(f"{int(whole * 700)}m", "1Mi")), Inputs())
    status = await timed.provider.pod_status(key)
    assert [(c.type, c.reason) for c in status.conditions] == [("PodResizePending", "Deferred")]
    assert status.containers[0].allocated == half["requests"]
    await timed.provider.delete_pod(other, 0)
    status = await timed.until(key, lambda s: s.conditions == ())
    assert status.containers[0].allocated == {"cpu": f"{int(whole * 700)}m", "memory": "1Mi"}


@pytest.mark.parametrize("reason", ["Deferred", "Infeasible"])
def test_the_condition_goes_when_it_no_longer_holds(reason: str) -> None:
    pod = running_pod("x", resources("1", "1Mi"))
    pending = PodStatus(conditions=(Condition("PodResizePending", "True", reason, "why"),))

    now = datetime(2026, 1, 1, tzinfo=UTC)
    there = api_status(pod, {}, pending, node_ips=["127.0.0.1"], now=now)
    assert [c["reason"] for c in there["conditions"] if c["type"] == "PodResizePending"] == [reason]
    patch = patch_of(pod, there, api_status(pod, there, PodStatus(), node_ips=["127.0.0.1"], now=now))
    assert patch is not None
    assert {"type": "PodResizePending", "$patch": "delete"} in patch["status"]["conditions"]
    assert patch_of(pod, there, api_status(pod, there, pending, node_ips=["127.0.0.1"], now=now)) is None


async def test_the_overhead_of_a_runtime_class_counts(timed: Runtime, image: str) -> None:
    key = await timed.create(running_pod(image, resources("100m", "1Mi"), spec={"overhead": {"cpu": "5m"}}))
    await timed.running(key)
    assert timed.provider._life(key).requests() == {"cpu": Decimal("0.105"), "memory": Decimal(2**20)}
    whole = timed.provider.services.capacity["cpu"]
    asked = resources(f"{int(whole * 1000)}m", "1Mi")
    await timed.provider.update_pod(running_pod(image, asked, spec={"overhead": {"cpu": "5m"}}), Inputs())
    (condition,) = (await timed.provider.pod_status(key)).conditions
    assert condition.reason == "Infeasible"
    assert condition.message.startswith("Node didn't have enough capacity: cpu, requested: ")
