"""restartCount only grows, and outlives a restart of the node's agent."""

from __future__ import annotations

from tests.conformance.harness import Kube, namespace
from tests.conformance.machine import Machine
from tests.conformance.reading import status


async def test_it_grows_one_by_one(kube: Kube) -> None:
    await kube.create("exit", "1", spec={"restartPolicy": "Always"})
    seen: list[int] = []

    def three_times(pod: dict[str, object]) -> bool:
        seen.append(status(pod).get("restartCount", 0))
        return seen[-1] == 3

    await kube.until(three_times)
    assert sorted(set(seen)) == [0, 1, 2, 3]
    assert seen == sorted(seen)


async def test_it_outlives_the_agent(machine: Machine) -> None:
    name, quick = machine.name(), {"max_container_restart_period": 1.0}
    async with machine.node(name, given=quick, drain_on_exit=False), namespace(machine, name) as kube:
        pass
    async with machine.node(name, given=quick, drain_on_exit=False):
        await machine.admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
        kube = Kube(machine, name, name)
        await kube.create("exit", "1", spec={"restartPolicy": "Always"})
        before = await kube.until(lambda pod: status(pod).get("restartCount", 0) >= 2)
    async with machine.node(name, given=quick):
        count = status(before)["restartCount"]
        after = await kube.until(lambda pod: status(pod)["restartCount"] > count)
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert status(after)["lastState"]["terminated"]["exitCode"] == 1
        await kube.clear()
    await machine.forget(name)
