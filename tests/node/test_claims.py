"""Claims of pods, read with a node's rights: by name, until they are bound, and no oftener than is of use."""

from __future__ import annotations

from typing import Any

import pytest

from tests.node.cluster import NODE, Cluster, running
from tests.node.faults.test_request_rates import Counting
from tests.node.trouble import KUBELET, FastClock
from wasmlet import Node
from wasmlet.kube import Client, errors, load_identity
from wasmlet.testing.reference import ReferenceProvider

VOLUMES = "/api/v1/persistentvolumes"
WANTS = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]


def claims(cluster: Cluster) -> str:
    return f"/api/v1/namespaces/{cluster.namespace}/persistentvolumeclaims"


async def claim(cluster: Cluster, name: str = "data") -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "s"}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
    return await cluster.admin.create(claims(cluster), body)


async def volume(cluster: Cluster, of: dict[str, Any], name: str = "pv") -> None:
    """What the controller of volumes writes where a volume is found for a claim."""
    reference = {key: of["metadata"][key] for key in ("name", "namespace", "uid")}
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"},
        "hostPath": {"path": "/srv/data"},
        "storageClassName": "s",
        "claimRef": {"kind": "PersistentVolumeClaim", **reference},
    }
    body = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
    await cluster.admin.create(VOLUMES, body)


async def bind(cluster: Cluster, name: str = "data", to: str = "pv") -> None:
    await cluster.admin.patch(f"{claims(cluster)}/{name}", {"spec": {"volumeName": to}})
    await cluster.admin.patch(f"{claims(cluster)}/{name}/status", {"status": {"phase": "Bound"}})


async def test_a_claim_is_handed_over_and_its_volume_once_it_is_bound(
    cluster: Cluster, provider: ReferenceProvider
) -> None:
    async with Node(provider, cluster.config(), clock=FastClock(20)):
        made = await cluster.create(volumes=WANTS)
        await provider.until(lambda: made.uid in provider.inputs)
        assert (provider.inputs[made.uid].claims, provider.inputs[made.uid].persistent_volumes) == ({}, {})
        await volume(cluster, await claim(cluster))
        await bind(cluster)
        await provider.until(lambda: provider.inputs[made.uid].persistent_volumes)
        inputs = provider.inputs[made.uid]
        assert inputs.claims["data"]["metadata"]["name"] == "data"
        assert inputs.persistent_volumes["data"]["spec"]["hostPath"]["path"] == "/srv/data"


async def test_a_volume_of_another_claim_is_not_taken(cluster: Cluster, provider: ReferenceProvider) -> None:
    """A claim can name any volume; whether that is its own, the volume says."""
    assert cluster.plane.url, "a real cluster's controller of volumes marks such a claim as lost"
    await claim(cluster)
    await volume(cluster, await claim(cluster, "other"))
    await bind(cluster)
    async with cluster.node(provider):
        made = await cluster.create(volumes=WANTS)
        await provider.until(lambda: made.uid in provider.inputs)
        assert list(provider.inputs[made.uid].claims) == ["data"]
        assert provider.inputs[made.uid].persistent_volumes == {}


async def test_a_node_may_read_what_its_pods_claim_and_nothing_else(
    cluster: Cluster, provider: ReferenceProvider
) -> None:
    await volume(cluster, await claim(cluster))
    await volume(cluster, await claim(cluster, "other"), "another")
    async with (
        cluster.node(provider),
        Client(await load_identity(cluster.plane.node_kubeconfig(NODE))) as node,
    ):
        await cluster.create(volumes=WANTS)
        await cluster.until(running)
        assert (await node.get(f"{VOLUMES}/pv"))["metadata"]["name"] == "pv"
        for path in (f"{VOLUMES}/another", VOLUMES, f"{claims(cluster)}/other"):
            with pytest.raises(errors.Forbidden):
                await node.get(path)


async def test_an_hour_of_a_claim_that_nobody_binds(cluster: Cluster, provider: ReferenceProvider) -> None:
    await claim(cluster)
    counting, clock = Counting(), FastClock(720)
    async with Node(provider, cluster.config(), clock=clock):
        await cluster.create(volumes=WANTS)
        await cluster.until(running)
        cluster.plane.faults.add(counting, user=KUBELET)
        await clock.sleep(3600)
        cluster.plane.faults.clear()
    looks = sum(count for what, count in counting.asked.items() if "persistentvolumeclaims" in what)
    # Once a minute or so. On a busy machine the fast clock makes outages of what is none, whose ends cut pauses short.
    assert 10 < looks <= 400
