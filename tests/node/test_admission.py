"""What a node turns away, and what it counts: the kubelet's reasons, in the phase and the status."""

from __future__ import annotations

from typing import Any

import pytest

import wasmlet
from tests.node.cluster import NODE, Cluster, running
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.testing.reference import ReferenceProvider


class Small(ReferenceProvider):
    """A node with little to give."""

    async def node_status(self) -> wasmlet.NodeStatus:
        return wasmlet.NodeStatus(
            capacity={"cpu": "2", "memory": "1Gi"},
            runtime_handlers=("", "wasmlet"),
            operating_system="wasi",
            architecture="wasm",
        )


def requests(**amounts: str) -> list[dict[str, Any]]:
    return [{"name": "c", "image": "file:///none.wasm", "resources": {"requests": amounts, "limits": amounts}}]


AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]
        }
    }
}


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        ({"nodeSelector": {"kubernetes.io/os": "linux"}}, "NodeAffinity", "node affinity/selector"),
        ({"affinity": AFFINITY}, "NodeAffinity", "node affinity/selector"),
        ({"os": {"name": "linux"}}, "PodOSNotSupported", "asked for linux"),
        ({"containers": requests(cpu="3")}, "OutOfcpu", "cpu, requested: 3, used: 0, capacity: 2"),
        ({"containers": requests(memory="2Gi")}, "OutOfmemory", "memory, requested: 2Gi, used: 0, capacity: 1Gi"),
        ({"containers": requests(**{"example.com/gpu": "1"})}, "OutOfexample.com/gpu", "capacity: 0"),
    ],
)
async def test_what_does_not_fit_fails_with_its_reason(
    cluster: Cluster, spec: dict[str, Any], reason: str, message: str
) -> None:
    provider = Small()
    async with cluster.node(provider):
        await cluster.create(**spec)
        pod = await cluster.until(lambda pod: pod.finished)
    assert (pod.phase, pod.status["reason"]) == ("Failed", reason)
    assert message in pod.status["message"]
    assert provider.created == []
    assert [event["reason"] for event in await cluster.events("p")] == [reason]


def on_ports(*ports: dict[str, Any]) -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "file:///none.wasm", "ports": list(ports)}]}


async def test_two_pods_that_want_one_port_of_the_node(cluster: Cluster) -> None:
    async with cluster.node(ReferenceProvider()):
        await cluster.create("a", **on_ports({"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}))
        await cluster.until(running, "a")
        taken = {
            "all": {"containerPort": 81, "hostPort": 8080},
            "same": {"containerPort": 81, "hostPort": 8080, "hostIP": "127.0.0.1", "protocol": "TCP"},
        }
        for name, port in taken.items():
            await cluster.create(name, **on_ports({"containerPort": 79}, port))
            pod = await cluster.until(lambda pod: pod.finished, name)
            assert (pod.phase, pod.status["reason"]) == ("Failed", "NodePorts")
            assert (
                "NodePorts failed: node(s) didn't have free ports for the requested pod ports"
                in (pod.status["message"])
            )
        free = {
            "udp": {"containerPort": 80, "hostPort": 8080, "protocol": "UDP"},
            "other": {"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.2"},
            "none": {"containerPort": 8080},
        }
        for name, port in free.items():
            await cluster.create(name, **on_ports(port))
            await cluster.until(running, name)


async def test_a_port_of_the_node_is_taken_over_a_restart_and_free_after_its_pod(cluster: Cluster) -> None:
    provider = ReferenceProvider()
    port = {"containerPort": 80, "hostPort": 8080}
    async with cluster.node(provider):
        await cluster.create("a", **on_ports(port))
        await cluster.until(running, "a")
    async with cluster.node(provider):
        # As at a kubelet, the ports of a pod with the node's own network are the node's.
        await cluster.create("b", hostNetwork=True, **on_ports({"containerPort": 8080}))
        pod = await cluster.until(lambda pod: pod.finished, "b")
        assert pod.status["reason"] == "NodePorts"
        await cluster.delete("a")
        await cluster.until_gone("a")
        await cluster.create("c", **on_ports(port))
        await cluster.until(running, "c")


async def test_a_pod_that_has_run_keeps_its_port_though_its_provider_has_lost_it(cluster: Cluster) -> None:
    port = {"containerPort": 80, "hostPort": 8080}
    async with cluster.node(ReferenceProvider()):
        await cluster.create("b", **on_ports(port))
        await cluster.until(running, "b")
    await cluster.create("a", **on_ports(port))  # which the API lists first
    async with cluster.node(ReferenceProvider()):
        pod = await cluster.until(lambda pod: pod.finished, "a")
        assert pod.status["reason"] == "NodePorts"
        await cluster.until(running, "b")


async def test_an_untolerated_noexecute_taint_and_a_noschedule_one(cluster: Cluster) -> None:
    taints = ("gone=1:NoExecute", "busy=1:NoSchedule")
    async with cluster.node(Small(), register_with_taints=taints):
        await cluster.create(tolerations=[{"key": "wasmlet.dev/provider", "operator": "Exists"}])
        pod = await cluster.until(lambda pod: pod.finished)
        assert pod.status["reason"] == "TaintToleration"
        assert "{gone: 1}" in pod.status["message"]
        # NoSchedule is for schedulers; who binds a pod by hand means it.
        await cluster.create("q", tolerations=[{"key": "gone", "operator": "Exists"}])
        await cluster.until(running, "q")


async def test_pods_are_counted_in_and_out(cluster: Cluster) -> None:
    provider = Small()
    async with cluster.node(provider, max_pods=3):
        first = await cluster.create("a", containers=requests(cpu="1500m"), restartPolicy="Never")
        await cluster.until(running, "a")
        await cluster.create("b", containers=requests(cpu="600m"))
        pod = await cluster.until(lambda pod: pod.finished, "b")
        assert "requested: 600m, used: 1500m, capacity: 2" in pod.status["message"]
        provider.finish(first.key)
        await cluster.until(lambda pod: pod.finished, "a")
        await cluster.create("c", containers=requests(cpu="1500m"))
        await cluster.until(running, "c")
        await cluster.delete("c")
        await cluster.until_gone("c")
        for name in ("d", "e", "f"):
            await cluster.create(name)
            await cluster.until(running, name)
        await cluster.create("g")
        assert (await cluster.until(lambda pod: pod.finished, "g")).status["reason"] == "OutOfpods"


async def test_an_adopted_pod_counts_and_is_never_turned_away(cluster: Cluster) -> None:
    provider = Small()
    async with cluster.node(provider):
        await cluster.create("a", containers=requests(cpu="2"))
        await cluster.until(running, "a")
    async with cluster.node(provider):
        await cluster.create("b", containers=requests(cpu="1"))
        assert (await cluster.until(lambda pod: pod.finished, "b")).status["reason"] == "OutOfcpu"
        assert (await cluster.get("a")).phase == "Running"


async def test_runtime_classes(cluster: Cluster) -> None:
    path = "/apis/node.k8s.io/v1/runtimeclasses"
    for name, handler in (("good", "wasmlet"), ("other", "runc"), ("passing", "wasmlet")):
        body = {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": name},
            "handler": handler,
        }
        await cluster.admin.create(path, body)
    await cluster.create("gone", runtimeClassName="passing")
    await cluster.admin.delete(f"{path}/passing")
    async with cluster.node(Small()):
        await cluster.create("a", runtimeClassName="good")
        await cluster.until(running, "a")
        await cluster.create("b", runtimeClassName="other")
        pod = await cluster.until(lambda pod: pod.finished, "b")
        assert pod.status["reason"] == "RuntimeHandlerNotSupported"
        assert pod.status["message"] == ("RuntimeClass \"other\" asks for handler 'runc'; this node offers: 'wasmlet'")
        pod = await cluster.until(lambda pod: pod.finished, "gone")
        assert pod.status["reason"] == "RuntimeClassNotFound"
    node = await cluster.admin.get(f"/api/v1/nodes/{NODE}")
    assert [handler["name"] for handler in node["status"]["runtimeHandlers"]] == ["", "wasmlet"]


async def test_labels_that_change_later_count_for_later_pods(cluster: Cluster) -> None:
    async with cluster.node(Small()):
        await cluster.admin.patch(f"/api/v1/nodes/{NODE}", {"metadata": {"labels": {"gpu": "1"}}}, MERGE_PATCH)
        await cluster.create(affinity=AFFINITY)
        await cluster.until(lambda pod: pod.phase != "Pending")
        assert (await cluster.get()).phase == "Running"


async def test_images_are_told_within_the_kubelets_bounds(cluster: Cluster) -> None:
    class Full(ReferenceProvider):
        images: tuple[wasmlet.NodeImage, ...] = tuple(
            wasmlet.NodeImage([f"r.example/app:{size}.{name}" for name in range(7)], size) for size in range(60, 0, -1)
        )

        async def node_status(self) -> wasmlet.NodeStatus:
            return wasmlet.NodeStatus(capacity={"cpu": "2", "memory": "1Gi"}, images=self.images)

    async def told() -> list[dict[str, Any]]:
        return list((await cluster.admin.get(f"/api/v1/nodes/{NODE}"))["status"].get("images") or ())

    provider = Full()
    async with cluster.node(provider):
        found = await told()
        assert [one["sizeBytes"] for one in found] == list(range(60, 10, -1))
        assert found[0]["names"] == [f"r.example/app:60.{name}" for name in range(5)]
    provider.images = ()
    async with cluster.node(provider):
        assert await told() == []
