"""A host that is killed again and again under its agents.

    python -m tests.remote.host_killings --agents 50 --kills 3

`host/test_processes.py` has the short form for every day.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.node.cluster import running
from tests.remote.agents import PATIENCE
from tests.remote.hosts import Stand, ready, stand
from wasmlet import Pod
from wasmlet.model.times import parse

_SECONDS = 5 * PATIENCE
"""Fifty nodes of one process begin at once."""
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


async def killed(
    there: Stand, agents: int, kills: int, seconds: float, say: Callable[[str], None] = lambda line: None
) -> None:
    """Kill the host so often under so many agents, each of which has a pod that stays and, each time, one that ends.

    Agents and pods go on. The next host takes over all of them, starts nothing a second time, and tells what ended
    meanwhile, once.

    Args:
        seconds: from the start of a pod to its end, which is to be while no host is there.
    """
    names = [f"edge-{number}" for number in range(agents)]
    there.grant(*names)
    host = await there.start_host()
    began = time.monotonic()
    process = await there.agent("edge", await there.token(uses=agents), agents=agents)
    await asyncio.gather(*(there.node(name, ready("True")) for name in names))
    say(f"{agents} agents have joined and are Ready after {time.monotonic() - began:.1f} s")
    await _create(there, names, "stays", "print", "hello")
    stay = [f"stays-{name}" for name in names]
    before = {name: (await there.cluster.get(name)).status for name in stay}
    for number in range(kills):
        since = (await there.admin.get(there.cluster.pods))["metadata"]["resourceVersion"]
        ends = await _create(there, names, f"ends-{number}", "sleep", str(seconds), "exit", "3", restartPolicy="Never")
        await host.end(signal.SIGKILL)
        dead = time.time()
        await asyncio.sleep(seconds)  # meanwhile they end
        began = time.monotonic()
        host = await there.start_host()
        await asyncio.gather(*(_renewed(there, name, dead) for name in names))
        say(f"kill {number + 1}: the next host has {agents} Nodes after {time.monotonic() - began:.1f} s")
        told = await _until_told(there, since, ends)
        say(f"kill {number + 1}: what has ended meanwhile is told after {time.monotonic() - began:.1f} s")
        await _create(there, names, f"new-{number}", "print", "hello")
        say(f"kill {number + 1}: another pod runs on each after {time.monotonic() - began:.1f} s")
        assert {name: codes.count(3) for name, codes in told.items()} == dict.fromkeys(ends, 1), "each end is told once"
    assert {name: (await there.cluster.get(name)).status for name in stay} == before, "they go on, untouched"
    begun = await _begun(there, [f"new-{kills - 1}-{name}" for name in names])
    assert not [name for name, times in begun.items() if times > 1], "no event is told a second time"
    assert process.process is not None
    assert process.process.returncode is None
    assert len([line for line in process.log if "the agent has joined" in line]) == agents


async def _create(there: Stand, nodes: Sequence[str], prefix: str, *script: str, **spec: Any) -> list[str]:
    """A pod on each node, which does what the script says; returns their names when all run or have run."""
    container = {"name": "c", "image": "x", "command": ["script"], "args": list(script)}

    async def one(node: str) -> str:
        name = f"{prefix}-{node}"
        await there.cluster.create(name, containers=[container], nodeName=node, **spec)
        await there.cluster.until(lambda pod: running(pod) or pod.finished, name)
        return name

    return await asyncio.gather(*map(one, nodes))


async def _renewed(there: Stand, name: str, since: float) -> None:
    """Return when the node's lease was renewed after a time of this machine's clock."""
    params = {"watch": "1", "fieldSelector": f"metadata.name={name}", "resourceVersion": ""}
    async with asyncio.timeout(_SECONDS), there.admin.stream(LEASES, params) as content:
        async for line in content:
            if parse(json.loads(line)["object"]["spec"]["renewTime"]).timestamp() > since:
                return
    raise AssertionError("the watch ended")


async def _until_told(there: Stand, since: str, names: Sequence[str]) -> dict[str, list[int | None]]:
    """The exit codes of each version of each pod since then (None: it runs), once all of these have one."""
    told: dict[str, list[int | None]] = {}
    left = set(names)
    params = {"watch": "1", "resourceVersion": since}
    async with asyncio.timeout(_SECONDS), there.admin.stream(there.cluster.pods, params) as content:
        async for line in content:
            pod = Pod(json.loads(line)["object"])
            for status in pod.status.get("containerStatuses", ()):
                told.setdefault(pod.name, []).append(status["state"].get("terminated", {}).get("exitCode"))
            if pod.finished:
                left.discard(pod.name)
            if not left:
                return told
    raise AssertionError("the watch ended")


async def _begun(there: Stand, last: Sequence[str]) -> dict[str, int]:
    """How often the API was told that each pod has begun, once it was told of these."""
    times: dict[str, int] = {}
    left = set(last)
    params = {"watch": "1", "resourceVersion": ""}
    async with asyncio.timeout(_SECONDS), there.admin.stream("/api/v1/events", params) as content:
        async for line in content:
            event = json.loads(line)["object"]
            if event.get("reason") == "Started":
                name = event["involvedObject"]["name"]
                times[name] = times.get(name, 0) + 1
                left.discard(name)
            if not left:
                return times
    raise AssertionError("the watch ended")


async def main(agents: int, kills: int) -> None:
    """The long form."""
    with tempfile.TemporaryDirectory(prefix="wasmlet-host-killings-") as directory:
        async with stand(Path(directory)) as there:
            there.cluster.seconds = _SECONDS
            await killed(there, agents, kills, seconds=10.0, say=print)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--kills", type=int, default=3)
    given = parser.parse_args()
    asyncio.run(main(given.agents, given.kills))
