"""However a pod comes to its end, the node loop's memory of it is free at once, without the garbage collector."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.node.cluster import Cluster, running
from tests.shared.garbage import nothing_left
from wasmlet.errors import Rejected
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.model.status import PodStatus
from wasmlet.node.pods.pod_task import PodTask
from wasmlet.node.pods.report import PodReport
from wasmlet.testing.reference import ReferenceProvider

PODS = 3


class Picky(ReferenceProvider):
    """Does what a pod's name asks of it."""

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        if pod.name.startswith("rejected"):
            raise Rejected("OutOfThings", "no things are left")
        if pod.name.startswith("broken"):
            raise ValueError("no such thing")
        await super().create_pod(pod, inputs)

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        final = await super().delete_pod(key, grace_seconds)
        if key.name.startswith("slow") and self.deleted.count(key) == 1:
            raise ValueError("not now")
        return final


Life = Callable[[Cluster, Picky, str], Awaitable[None]]


async def runs(cluster: Cluster, provider: Picky, name: str) -> None:
    await cluster.create(name)
    await cluster.until(running, name)


async def ends(cluster: Cluster, provider: Picky, name: str) -> None:
    made = await cluster.create(name, restartPolicy="Never")
    await cluster.until(running, name)
    provider.finish(made.key, 0)
    await cluster.until(lambda pod: pod.finished, name)


async def is_refused(cluster: Cluster, provider: Picky, name: str) -> None:
    await cluster.create(name, hostPID=True)
    await cluster.until(lambda pod: pod.status.get("containerStatuses"), name)


async def is_rejected(cluster: Cluster, provider: Picky, name: str) -> None:
    await cluster.create(f"rejected-{name}")
    await cluster.until(lambda pod: pod.finished, f"rejected-{name}")


async def cannot_be_made(cluster: Cluster, provider: Picky, name: str) -> None:
    await cluster.create(f"broken-{name}")
    await cluster.until(lambda pod: pod.status.get("containerStatuses"), f"broken-{name}")


async def cannot_be_ended_at_first(cluster: Cluster, provider: Picky, name: str) -> None:
    await cluster.create(f"slow-{name}")
    await cluster.until(running, f"slow-{name}")


async def lacks_a_config_map(cluster: Cluster, provider: Picky, name: str) -> None:
    source = [{"configMapRef": {"name": f"absent-{name}"}}]
    await cluster.create(name, containers=[{"name": "c", "image": "file:///none.wasm", "envFrom": source}])
    await cluster.until(lambda pod: pod.status.get("containerStatuses"), name)


LIVES: list[Life] = [
    runs,
    ends,
    is_refused,
    is_rejected,
    cannot_be_made,
    cannot_be_ended_at_first,
    lacks_a_config_map,
]


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
async def test_an_ended_pod_leaves_nothing(cluster: Cluster, life: Life) -> None:
    provider = Picky()
    async with cluster.node(provider):
        await _to_its_end(cluster, provider, life, "first")  # what is made once, is made
        async with nothing_left(PodTask, PodReport):
            for number in range(PODS):
                await _to_its_end(cluster, provider, life, f"p{number}")


async def _to_its_end(cluster: Cluster, provider: Picky, life: Life, name: str) -> None:
    await life(cluster, provider, name)
    found = await cluster.admin.get(cluster.pods)
    for item in found["items"]:
        await cluster.delete(item["metadata"]["name"])
        await cluster.until_gone(item["metadata"]["name"])
