"""What is left of tests in a real cluster: what others had there, all of it and as it was."""

from __future__ import annotations

import pytest

from tests.node.cluster import NODE, pod_spec
from tests.node.real import EVENTS, LEASES, NAMESPACES, NODES, RealPlane, Recording, alone
from wasmlet.kube import Client, errors, load_identity
from wasmlet.testing import ControlPlane

CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
KINDS = (CLASSES, MAPS, PODS, NODES, LEASES, EVENTS)


async def make(admin: Client, name: str, node: str) -> None:
    """One object of each kind, with that name; the pod is held by a finalizer and bound to that node."""
    await admin.create(NODES, {"metadata": {"name": node}})
    await admin.create(LEASES, {"metadata": {"name": node}})
    await admin.create(CLASSES, {"metadata": {"name": name}, "handler": "h"})
    await admin.create(MAPS, {"metadata": {"name": name}})
    await admin.create(PODS, {"metadata": {"name": name, "finalizers": ["a/b"]}, "spec": pod_spec(nodeName=node)})
    about = {"kind": "Node", "name": node}
    await admin.create(EVENTS, {"metadata": {"name": name, "namespace": "default"}, "involvedObject": about})


async def objects(admin: Client) -> set[str]:
    return {item["metadata"]["uid"] for path in KINDS for item in (await admin.get(path))["items"]}


async def test_what_others_have_is_left_alone() -> None:
    async with ControlPlane() as plane:
        identity = await load_identity(plane.kubeconfig)
        real = RealPlane(plane.kubeconfig, plane.client_ca_file, "true", nodes={NODE})
        async with Client(identity) as somebody, Recording(identity) as admin:
            await make(somebody, "theirs", "their-node")
            before = await objects(somebody)
            async with alone(real, admin, NODE) as namespace:
                await admin.create(f"{NAMESPACES}/{namespace}/pods", {"metadata": {"name": "p"}, "spec": pod_spec()})
                await make(admin, "ours", NODE)
                # Made by the node itself.
                await somebody.create(EVENTS, {
                    "metadata": {"name": "told", "namespace": "default"},
                    "involvedObject": {"kind": "Pod", "name": "gone"},
                    "source": {"host": NODE},
                })  # fmt: skip
                await somebody.create(MAPS, {"metadata": {"name": "theirs-meanwhile"}})
                meanwhile = (await somebody.get(f"{MAPS}/theirs-meanwhile"))["metadata"]["uid"]
                assert len(await objects(somebody)) >= len(before) + 8
            assert await objects(somebody) == before | {meanwhile}
            assert not (await somebody.get("/api/v1/pods", fieldSelector=f"metadata.namespace={namespace}"))["items"]
            with pytest.raises(errors.ObjectNotFound):
                await somebody.get(f"{NAMESPACES}/{namespace}")


async def test_a_node_of_that_name_is_somebodys() -> None:
    async with ControlPlane() as plane:
        identity = await load_identity(plane.kubeconfig)
        async with Recording(identity) as admin:
            await admin.create(NODES, {"metadata": {"name": NODE}})
            with pytest.raises(pytest.fail.Exception, match=f"node {NODE} is there already"):
                async with alone(RealPlane(plane.kubeconfig, plane.client_ca_file, "true"), admin, NODE):
                    pass
            assert (await admin.get(f"{NODES}/{NODE}"))["metadata"]["name"] == NODE
