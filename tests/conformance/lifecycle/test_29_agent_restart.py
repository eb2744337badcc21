"""The agent may end and come back: its pods run on and are adopted, and pending deletes are finished."""

from __future__ import annotations

from tests.conformance.harness import namespace
from tests.conformance.machine import Machine
from tests.conformance.reading import status


async def test_pods_are_adopted(machine: Machine) -> None:
    name = machine.name()
    async with namespace(machine, name) as kube:
        async with machine.node(name, drain_on_exit=False):
            await kube.create("print", "one", "await", "/go/on", "now", "print", "two", **kube.gate())
            await kube.create("sleep", "1000", name="q")
            before = {pod: status(await kube.ready(pod)) for pod in ("p", "q")}
        await kube.delete("q")
        assert (await kube.get())["status"]["phase"] == "Running"
        async with machine.node(name):
            await kube.gone("q")
            await kube.open_gate()
            pod = await kube.phase("Succeeded")
            assert status(pod)["containerID"] == before["p"]["containerID"]
            assert status(pod)["restartCount"] == 0
            assert await kube.log() == "one\ntwo\n"
            await kube.clear()
    await machine.forget(name)


async def test_what_ended_meanwhile_is_told(machine: Machine) -> None:
    name = machine.name()
    async with namespace(machine, name) as kube:
        async with machine.node(name, drain_on_exit=False):
            await kube.create("sleep", "1", "exit", "3")
            before = await kube.running()
        async with machine.node(name):
            pod = await kube.phase("Failed")
            assert status(pod)["state"]["terminated"]["exitCode"] == 3
            assert status(pod)["containerID"] == status(before)["containerID"]
            await kube.clear()
    await machine.forget(name)
