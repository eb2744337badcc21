"""A node says that it is Ready and under no pressure, at every change within 10 s and every five minutes anyway."""

from __future__ import annotations

import asyncio
from datetime import datetime

from tests.conformance.conftest import Own
from tests.conformance.harness import SECONDS, Kube
from tests.conformance.machine import Machine
from tests.conformance.reading import condition
from wasmlet.errors import WasmletError
from wasmlet.testing.clock import FakeClock

PRESSURE = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")


async def test_conditions(kube: Kube) -> None:
    node = await kube.node_object()
    assert condition(node, "Ready")["status"] == "True"
    assert condition(node, "Ready")["reason"] == "KubeletReady"
    assert {kind: condition(node, kind)["status"] for kind in PRESSURE} == dict.fromkeys(PRESSURE, "False")


async def test_heartbeats_and_changes(own: Own, machine: Machine) -> None:
    sick = False

    class Provider(machine.provider):
        async def ping(self) -> None:
            if sick:
                raise WasmletError("out of order")
            await super().ping()

    clock = FakeClock()
    async with own(kind=Provider, node_clock=clock) as kube:
        first = condition(await kube.node_object(), "Ready")
        clock.advance(301)
        async with asyncio.timeout(SECONDS):
            while (beat := condition(await kube.node_object(), "Ready")) == first:
                clock.advance(1)
        assert beat["lastTransitionTime"] == first["lastTransitionTime"]
        passed = datetime.fromisoformat(beat["lastHeartbeatTime"]) - datetime.fromisoformat(first["lastHeartbeatTime"])
        assert passed.total_seconds() >= 300
        sick = True
        async with asyncio.timeout(SECONDS):
            while (ready := condition(await kube.node_object(), "Ready"))["status"] == "True":
                clock.advance(1)
        assert (ready["status"], ready["reason"]) == ("False", "KubeletNotReady")
        assert "out of order" in ready["message"]
        sick = False
        async with asyncio.timeout(SECONDS):
            while condition(await kube.node_object(), "Ready")["status"] == "False":
                clock.advance(1)
