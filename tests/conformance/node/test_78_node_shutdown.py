"""A node that is shut down in order ends its pods first, the critical ones last: Failed, Terminated, and they stay."""

from __future__ import annotations

from datetime import datetime

from tests.conformance.harness import namespace
from tests.conformance.machine import Machine
from tests.conformance.reading import condition, terminated

MESSAGE = "Pod was terminated in response to imminent node shutdown."


async def test_order_and_status(machine: Machine) -> None:
    name = machine.name()
    async with namespace(machine, name) as kube:
        async with machine.node(name, drain_on_exit=True):
            critical = {"priorityClassName": "system-node-critical"}
            await kube.create("print", "critical", "sleep", "1000", name="critical", spec=critical)
            await kube.create("print", "plain", "sleep", "1000", name="plain", spec={"restartPolicy": "Always"})
            await kube.create("print", "x", name="done")
            for pod in ("critical", "plain"):
                await kube.ready(pod)
            done = await kube.phase("Succeeded", "done")
        ends = {}
        for pod_name in ("critical", "plain"):
            pod = await kube.get(pod_name)
            assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "Terminated")
            assert pod["status"]["message"] == MESSAGE
            assert condition(pod, "DisruptionTarget")["reason"] == "TerminationByKubelet"
            ends[pod_name] = datetime.fromisoformat(terminated(pod)["finishedAt"])
        assert ends["plain"] <= ends["critical"]
        assert (await kube.get("done"))["status"] == done["status"]
        node = await kube.node_object()
        assert condition(node, "Ready")["status"] == "False"
        ended = {pod_name: (await kube.get(pod_name))["status"] for pod_name in ends}
        async with machine.node(name):
            for pod_name, status in ended.items():
                assert await kube.log(pod_name) == f"{pod_name}\n"
                assert (await kube.get(pod_name))["status"] == status
            await kube.clear()
    await machine.forget(name)
