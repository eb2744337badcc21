"""preStop runs before a container is ended, by exec or sleep, and what it takes counts in the grace period.

Hooks over http ask the pod's address, where the node has a network.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.harness import SECONDS, Kube, namespace
from tests.conformance.lifecycle.test_18_liveness_probes import LISTENS
from tests.conformance.machine import Machine
from tests.conformance.reading import state, status, terminated

LOOK = {"finalizers": ["example.com/look"]}


async def test_it_runs_in_the_container_that_still_runs(kube: Kube) -> None:
    spec: dict[str, Any] = {"volumes": [{"name": "v", "emptyDir": {}}], "terminationGracePeriodSeconds": 600}
    hook = {"preStop": {"exec": {"command": ["x", "put", "/v/hook", "now", "await", "/v/main", "seen"]}}}
    script = ("await", "/v/hook", "now", "put", "/v/main", "seen", "sleep", "1000")
    mounts = [{"name": "v", "mountPath": "/v"}]
    await kube.create(*script, lifecycle=hook, spec=spec, volumeMounts=mounts, metadata=LOOK)
    await kube.running()
    log = asyncio.create_task(kube.logged("put"))
    await kube.delete()
    pod = await kube.until(terminated)
    assert terminated(pod)["exitCode"] == 143
    assert await log == "put /v/main: ok\n"


async def test_it_counts_in_the_grace_period(timed: Kube) -> None:
    spec = {"terminationGracePeriodSeconds": 60}
    await timed.create("sleep", "1000", lifecycle={"preStop": {"sleep": {"seconds": 40}}}, spec=spec)
    await timed.running()
    await timed.delete()
    async with asyncio.timeout(SECONDS):
        assert await timed.clock.next_sleep(39, 40) == 40
    assert "running" in state(await timed.get())
    timed.clock.advance(40)
    await timed.gone()


async def test_the_grace_period_ends_it(timed: Kube) -> None:
    hook = {"preStop": {"exec": {"command": ["x", "sleep", "100000"]}}}
    await timed.create("sleep", "1000", lifecycle=hook, spec={"terminationGracePeriodSeconds": 60})
    await timed.running()
    await timed.delete()
    async with asyncio.timeout(SECONDS):
        assert await timed.clock.next_sleep(59, 60) == pytest.approx(60, abs=1)  # the way to an agent counts
    timed.clock.advance(60)
    await timed.gone()


async def test_its_failure_ends_the_container_all_the_same(kube: Kube) -> None:
    hook = {"preStop": {"exec": {"command": ["x", "exit", "1"]}}}
    await kube.create("sleep", "1000", lifecycle=hook)
    await kube.running()
    await kube.remove()
    await kube.event("FailedPreStopHook")


async def test_over_http(net: Kube) -> None:
    """The server is asked before it is interrupted."""
    probe = {"httpGet": {"path": "/500", "port": "web"}, "periodSeconds": 1, "failureThreshold": 1}
    hook = {"preStop": {"httpGet": {"path": "/bye", "port": 8080}}}
    await net.serve(startupProbe=LISTENS, livenessProbe=probe, lifecycle=hook, spec={"restartPolicy": "Always"})
    await net.until(lambda pod: status(pod).get("restartCount", 0) >= 1)
    assert "GET /bye HTTP/1.1" in (await net.log(previous="true")).splitlines()[-1]


async def test_without_a_network_it_is_refused(kube: Kube) -> None:
    hook = {"preStop": {"httpGet": {"port": 8080}}}
    await kube.refuses("p", "spec.containers[0].lifecycle.preStop.httpGet", lifecycle=hook)


async def test_it_runs_for_a_pod_that_was_deleted_while_the_agent_was_away(machine: Machine) -> None:
    """What it takes counts in what is left of the grace period."""
    name = machine.name()
    async with namespace(machine, name) as kube:
        spec: dict[str, Any] = {"volumes": [{"name": "v", "emptyDir": {}}], "terminationGracePeriodSeconds": 600}
        hook = {"preStop": {"exec": {"command": ["x", "put", "/v/hook", "now", "await", "/v/main", "seen"]}}}
        script = ("await", "/v/hook", "now", "put", "/dev/termination-log", "asked", "put", "/v/main", "seen",
                  "sleep", "1000")  # fmt: skip
        mounts = [{"name": "v", "mountPath": "/v"}]
        async with machine.node(name, drain_on_exit=False):
            await kube.create(*script, lifecycle=hook, spec=spec, volumeMounts=mounts, metadata=LOOK)
            await kube.running()
        await kube.delete()
        async with machine.node(name):
            pod = await kube.until(terminated)
            assert terminated(pod)["exitCode"] == 143
            assert terminated(pod)["message"] == "asked"
            await kube.clear()
    await machine.forget(name)
