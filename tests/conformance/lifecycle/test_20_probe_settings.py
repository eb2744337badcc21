"""Timeout, period, thresholds and grace period of probes, and the Unhealthy event.

Named ports and headers belong to probes over the network.
"""

from __future__ import annotations

import asyncio

from tests.conformance.harness import SECONDS, Kube
from tests.conformance.reading import condition, status


async def test_timeout(timed: Kube) -> None:
    probe = {"exec": {"command": ["x", "sleep", "1000"]}, "timeoutSeconds": 3, "failureThreshold": 1}
    await timed.create("sleep", "1000", livenessProbe=probe, spec={"restartPolicy": "Always"})
    await timed.running()
    async with asyncio.timeout(SECONDS):
        assert await timed.clock.next_sleep(3, 3) == 3
    timed.clock.advance(3)
    event = await timed.event("Unhealthy")
    assert event["message"] == 'Liveness probe failed: command timed out: "x sleep 1000" timed out after 3s'
    assert event["involvedObject"]["fieldPath"] == "spec.containers{c}"
    await timed.until(lambda pod: status(pod).get("restartCount") == 1)


async def test_period_and_thresholds(timed: Kube) -> None:
    """Ready after two successes in a row, unready after three failures in a row."""
    probe = {"exec": {"command": ["x", "has", "/go/on"]}, "periodSeconds": 20}
    await timed.config_map("gate", on="now")
    await timed.create(
        *("await", "/go/off", "now", "print", "off", "sleep", "1000"),
        **timed.gate(),
        readinessProbe=probe | {"successThreshold": 2, "failureThreshold": 3},
    )
    await probed(timed, "successful", 1)
    assert condition(await timed.get(), "Ready")["status"] == "False"
    await period(timed)
    await timed.ready()
    await timed.patch({"data": {"on": None, "off": "now"}}, "gate", "configmaps")
    await timed.logged("off\n")
    for failures in (1, 2):
        await period(timed)
        await probed(timed, "failed", failures)
        assert condition(await timed.get(), "Ready")["status"] == "True"
    await period(timed)
    await timed.until(lambda pod: condition(pod, "Ready")["status"] == "False")
    await timed.event("Unhealthy", part="Readiness probe failed")


async def probed(kube: Kube, result: str, times: int) -> None:
    """Return when probes have ended so, so many times."""
    async with kube.patience():
        while await kube.metric("metrics/probes", "prober_probe_total", f'result="{result}"') < times:
            pass


async def period(kube: Kube) -> None:
    async with asyncio.timeout(SECONDS):
        left = await kube.clock.next_sleep(19, 20)
    kube.clock.advance(left)


async def test_a_grace_period_of_its_own(kube: Kube) -> None:
    """The hook would outlast any patience; the probe's grace period ends it."""
    probe = {
        "exec": {"command": ["x", "exit", "1"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
        "terminationGracePeriodSeconds": 1,
    }
    hook = {"preStop": {"exec": {"command": ["x", "sleep", "1000"]}}}
    spec = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 1000}
    await kube.create("sleep", "1000", livenessProbe=probe, lifecycle=hook, spec=spec)
    await kube.until(lambda pod: status(pod).get("restartCount", 0) >= 1)


async def test_named_ports_and_headers(net: Kube) -> None:
    headers = [{"name": "X-Probe", "value": "yes"}, {"name": "Host", "value": "example.com"}]
    probe = {"httpGet": {"path": "/up?a=b", "port": "web", "httpHeaders": headers}, "periodSeconds": 1}
    await net.serve(startupProbe=probe)
    await net.ready()
    asked = (await net.logged("GET /up?a=b HTTP/1.1")).splitlines()[-1]
    assert {"X-Probe: yes", "Host: example.com", "Accept: */*"} <= set(asked.split(" | "))
    assert "User-Agent: kube-probe/" in asked


async def test_another_host_is_refused(net: Kube) -> None:
    """Else a pod could have the node dial whom it likes."""
    probe = {"httpGet": {"path": "/", "port": 80, "host": "192.0.2.1"}}
    await net.refuses("p", "spec.containers[0].readinessProbe.httpGet.host", readinessProbe=probe)
