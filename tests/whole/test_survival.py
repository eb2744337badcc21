"""Node loop, zygotes and shim are killed, at rest and in the midst of things, ten times each, and nobody's pod suffers.

The node loop is the command line's, in a process of its own, against the embedded control plane: see
`tests.node.node_process`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.guests import build
from tests.node.cluster import Cluster, running
from tests.node.node_process import NodeProcess, started
from tests.worker.harness import alive, children, wait_gone
from wasmlet import Pod
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane

TEN = range(10)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane())
        admin = await stack.enter_async_context(Client(await load_identity(plane.kubeconfig)))
        yield Cluster(plane, admin, tmp_path, seconds=90.0)


@pytest.fixture
async def node(cluster: Cluster, compile_guest: Callable[..., None]) -> AsyncIterator[NodeProcess]:
    async with started(cluster, f"file://{build('driver', compile_guest)}") as node:
        yield node


def container(pod: Pod) -> Any:
    (found,) = pod.status["containerStatuses"]
    return found


def terminated(pod: Pod) -> bool:
    statuses = pod.status.get("containerStatuses") or [{}]
    return "terminated" in statuses[0].get("state", {})


def restarted(pod: Pod) -> bool:
    return bool(container(pod)["restartCount"] == 1)


def runs(pod: Pod) -> bool:
    """Whether its container runs: a pod is Running too while its container is between a failed start and the next."""
    return running(pod) and "running" in container(pod)["state"]


async def all_running(cluster: Cluster, names: list[str]) -> dict[str, Pod]:
    return {name: await cluster.until(runs, name) for name in names}


async def goes_on(cluster: Cluster, node: NodeProcess, before: dict[str, Pod], records: dict[str, Any]) -> None:
    """What ran goes on in the same process, as the same container, and has run once.

    A start that failed before it is no run: the shim gives one up whose zygote was killed twice before the guest began.
    """
    after = node.records()
    for name, pod in before.items():
        now = container(await cluster.until(runs, name))
        assert now["containerID"] == container(pod)["containerID"]
        *failed, record = after[name]
        assert not any(one["started"] for one in failed)
        assert now["restartCount"] == record["labels"]["attempt"] == len(failed)
        assert (record["id"], record["pid"]) == (records[name][-1]["id"], records[name][-1]["pid"])
        assert alive(record["pid"])
        assert node.log(record) == [f"I am {name}"]
    assert await node.guests() == {after[name][-1]["pid"] for name in before}


async def gone(cluster: Cluster, names: list[str]) -> None:
    """Delete these, and return when they are gone."""
    for name in names:
        await cluster.delete(name, gracePeriodSeconds=1)
    for name in names:
        await cluster.until_gone(name)


def sleeper(name: str) -> tuple[str, ...]:
    return ("print", f"I am {name}", "sleep", "100000")


async def test_200_pods_go_on(cluster: Cluster, node: NodeProcess) -> None:
    names = [f"p{number}" for number in range(200)]
    await asyncio.gather(*(node.create(name, *sleeper(name)) for name in names))
    before = await all_running(cluster, names)
    records = node.records()
    await node.kill()
    assert await node.kill_zygotes() == 1
    await node.start()
    await node.settled()
    await goes_on(cluster, node, before, records)


@pytest.mark.timeout(600)
async def test_killed_at_rest(cluster: Cluster, node: NodeProcess, kubectl: Path) -> None:
    """Some of them end while nobody looks, and one has an exec in it."""
    rng = random.Random(1)
    names = [f"p{number}" for number in range(5)]
    for name in names:
        await node.create(name, *sleeper(name))
    before = await all_running(cluster, names)
    records = node.records()
    for turn in TEN:
        code, number = rng.randrange(256), rng.choice([signal.SIGKILL, signal.SIGABRT, signal.SIGQUIT])
        exits, killed, traps, again = leaving = [f"{what}-{turn}" for what in ("exits", "killed", "traps", "again")]
        for name, work in zip(leaving, (f"exit {code}", "sleep 100000", "trap", "exit 1"), strict=True):
            # They wait for a file that is made when the node loop is gone.
            await node.create(
                name, "await", "/v/go", "now", *work.split(), restart="OnFailure" if name == again else "Never",
                volumes=[{"name": "v", "emptyDir": {}}], volumeMounts=[{"name": "v", "mountPath": "/v"}],
            )  # fmt: skip
        await all_running(cluster, leaving)
        left = {name: node.records()[name][0] for name in leaving}
        async with executing(cluster, kubectl, "p0"):
            known = {record["pid"] for found in node.records().values() for record in found}
            (executed,) = await node.guests() - known
            await node.kill()
            await node.kill_zygotes()
            await asyncio.to_thread(wait_gone, executed)
        os.kill(left[killed]["pid"], number)
        for name in (exits, traps, again):
            (directory,) = (node.state / "runtime" / "pods" / left[name]["labels"]["pod"]["uid"]).rglob("v")
            (directory / "go").write_text("now")
        for record in left.values():
            await asyncio.to_thread(wait_gone, record["pid"])
        await node.start()

        end = {name: container(await cluster.until(terminated, name)) for name in (exits, killed, traps)}
        found = {name: status["state"]["terminated"] for name, status in end.items()}
        assert found[exits]["exitCode"] == code
        assert (found[killed]["exitCode"], found[killed]["signal"]) == (128 + number, number)
        assert found[traps]["exitCode"] == 134
        assert "unreachable" in found[traps]["message"]
        last = container(await cluster.until(restarted, again))["lastState"]["terminated"]
        assert last["exitCode"] == 1  # of the instance before, or of this one, which has ended too by now
        first = node.records()[again][0]
        assert (first["id"], first["exit_code"], first["labels"]["attempt"]) == (left[again]["id"], 1, 0)
        assert [len(node.records()[name]) for name in found] == [1, 1, 1]
        await gone(cluster, leaving)
        await node.settled()
        await goes_on(cluster, node, before, records)


@contextlib.asynccontextmanager
async def executing(cluster: Cluster, kubectl: Path, name: str) -> AsyncIterator[None]:
    """A kubectl that has a command in the pod, and ends with it."""
    process = await asyncio.create_subprocess_exec(
        kubectl, "--kubeconfig", cluster.plane.kubeconfig, "exec", name, "--", "driver", "print", "in", "sleep", "1000",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"in\n"
    yield
    await process.wait()


@pytest.mark.timeout(600)
async def test_killed_while_pods_start(cluster: Cluster, node: NodeProcess) -> None:
    """Five times two kills, wherever it is: what has begun goes on, what has not begins, and nothing runs twice."""
    rng = random.Random(2)
    for number in range(5):
        await node.settled()
        names = [f"r{number}-{pod}" for pod in range(10)]

        async def create_all(names: list[str]) -> None:
            for name in names:
                await node.create(name, *sleeper(name))

        creating = asyncio.create_task(create_all(names))
        for _ in range(2):
            await asyncio.sleep(rng.random() * 0.3)
            await node.kill()
            if rng.random() < 0.5:
                await node.kill_zygotes()
            await node.start()
            await asyncio.sleep(1 + rng.random())
        await creating
        before = await all_running(cluster, names)
        records = node.records()
        await node.settled()
        await goes_on(cluster, node, before, records)
        await gone(cluster, names)


@pytest.mark.timeout(600)
async def test_killed_with_the_shim(cluster: Cluster, node: NodeProcess) -> None:
    """Its containers end with it, and are run again where their policy has it so."""
    rng = random.Random(3)
    for turn in TEN:
        always, failure, never, done = names = [f"{what}-{turn}" for what in ("always", "failure", "never", "done")]
        for name, policy in zip(names, ("Always", "OnFailure", "Never"), strict=False):
            await node.create(name, *sleeper(name), restart=policy)
        await node.create(done, "exit", "3", restart="Never")
        before = await all_running(cluster, [always, failure, never])
        was_done = container(await cluster.until(terminated, done))
        pids = await node.guests()
        for victim in rng.sample([node.kill, node.kill_shim], 2):
            await victim()
        for pid in pids:
            await asyncio.to_thread(wait_gone, pid)
        await node.start()

        lost = container(await cluster.until(terminated, never))["state"]["terminated"]
        assert (lost["exitCode"], lost["reason"]) == (137, "ContainerStatusUnknown")
        assert (await cluster.get(never)).phase == "Failed"
        for name in (always, failure):
            found = container(await cluster.until(lambda pod: running(pod) and restarted(pod), name))
            assert found["containerID"] != container(before[name])["containerID"]
            last = found["lastState"]["terminated"]
            assert (last["exitCode"], last["reason"]) == (137, "ContainerStatusUnknown")
        await node.settled()
        assert container(await cluster.get(done)) == was_done
        assert len(await node.guests()) == 2
        await gone(cluster, names)
        assert set(children(await node.shim()).values()) <= {"wasmlet-zygote", "wasmlet-spare"}
