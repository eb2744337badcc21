"""What runs here and is not in the API any more is ended; an API that cannot be heard is no reason to end anything."""

from __future__ import annotations

from tests.conformance.harness import namespace
from tests.conformance.lifecycle.test_25_force_delete import running
from tests.conformance.machine import Machine
from tests.conformance.reading import begun, status


async def test_a_pod_that_went_while_the_agent_was_away(machine: Machine) -> None:
    name = machine.name()
    async with namespace(machine, name) as kube:
        async with machine.node(name, drain_on_exit=False):
            await kube.create("sleep", "1000", name="orphan")
            await kube.create("sleep", "1000", name="kept")
            await kube.ready("orphan")
            kept = await kube.ready("kept")
        await kube.remove("orphan", gracePeriodSeconds=0)
        async with machine.node(name):
            async with kube.patience():
                while await running(kube) != ["kept"]:
                    pass
            assert status(await kube.get("kept"))["containerID"] == status(kept)["containerID"]
            assert begun(await kube.get("kept"))
            await kube.clear()
    await machine.forget(name)
