"""What tests of the node loop have around them: an API server, rights on it, and words for what they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import orjson

import wasmlet
from wasmlet.kube import Client

NODE = "n1"
SECONDS = 60.0


@attrs.define
class Cluster:
    """An API server and an administrator's client of it."""

    plane: Any
    """A `ControlPlane`, or a `tests.node.real.RealPlane`."""
    admin: Client
    directory: Path
    seconds: float = SECONDS
    """How long anything that is waited for may take."""
    namespace: str = "default"
    """Where the tests' pods are."""

    @property
    def pods(self) -> str:
        """The collection of the tests' pods."""
        return f"/api/v1/namespaces/{self.namespace}/pods"

    @property
    def maps(self) -> str:
        """The collection of the tests' config maps."""
        return f"/api/v1/namespaces/{self.namespace}/configmaps"

    def config(self, name: str = NODE, **settings: Any) -> wasmlet.NodeConfig:
        """Settings of a node of that name, with a node's rights and no more."""
        given = {
            "kubeconfig": self.plane.node_kubeconfig(name),
            "node_name": name,
            "node_ip": "127.0.0.1",
            "port": 0,
            "client_ca_file": self.plane.client_ca_file,
            "state_dir": self.directory / name,
            "serving_csr": False,
        }
        return wasmlet.NodeConfig(**(given | settings))

    @asynccontextmanager
    async def node(self, provider: wasmlet.Provider, **settings: Any) -> AsyncIterator[wasmlet.Node]:
        """A node that runs while the context is open."""
        async with wasmlet.Node(provider, self.config(**settings)) as node:
            yield node

    async def create(self, name: str = "p", **spec: Any) -> wasmlet.Pod:
        """A pod bound to the node."""
        metadata = spec.pop("metadata", {}) | {"name": name}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(**spec)}
        return wasmlet.Pod(await self.admin.create(self.pods, body))

    async def get(self, name: str = "p") -> wasmlet.Pod:
        return wasmlet.Pod(await self.admin.get(f"{self.pods}/{name}"))

    async def delete(self, name: str = "p", **options: Any) -> None:
        await self.admin.delete(f"{self.pods}/{name}", options or None)

    async def until(self, wanted: Callable[[wasmlet.Pod], Any], name: str = "p") -> wasmlet.Pod:
        """The pod as soon as it is as wanted, by watching it."""
        last: dict[str, Any] = {}
        try:
            async with asyncio.timeout(self.seconds), aclosing(self.versions(name)) as versions:
                async for kind, raw in versions:
                    last = raw
                    if kind != "DELETED" and wanted(wasmlet.Pod(raw)):
                        return wasmlet.Pod(raw)
        except TimeoutError:
            status = orjson.dumps(last.get("status"), option=orjson.OPT_INDENT_2).decode()
            raise AssertionError(f"pod {name} never was as wanted; at last: {status}") from None
        raise AssertionError("the watch ended")

    async def until_gone(self, name: str = "p", uid: str | None = None) -> None:
        """Return when no such pod (with that UID) exists."""
        async with asyncio.timeout(self.seconds):
            found = await self.admin.get(self.pods, fieldSelector=f"metadata.name={name}")
            if not any(uid in (None, item["metadata"]["uid"]) for item in found["items"]):
                return
            async with aclosing(self.versions(name, found["metadata"]["resourceVersion"])) as versions:
                async for kind, raw in versions:
                    if kind == "DELETED" and uid in (None, raw["metadata"]["uid"]):
                        return

    async def versions(self, name: str, since: str = "") -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """The pod now (without `since`) and after each change, with the kind of the event."""
        params = {"watch": "1", "fieldSelector": f"metadata.name={name}", "resourceVersion": since}
        async with self.admin.stream(self.pods, params) as content:
            async for line in content:
                event = orjson.loads(line)
                yield event["type"], event["object"]

    async def events(self, name: str) -> list[dict[str, Any]]:
        """The Events about the object of that name, in the tests' namespace; those of a node are in `default`."""
        found = await self.admin.get("/api/v1/events")
        ours = (self.namespace, "default" if name == NODE else self.namespace)
        return [e for e in found["items"] if e["involvedObject"]["name"] == name and e["metadata"]["namespace"] in ours]


def pod_spec(**spec: Any) -> dict[str, Any]:
    return {
        "nodeName": NODE,
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "c", "image": "file:///none.wasm"}],
    } | spec


def condition(raw: Any, kind: str) -> Any:
    """The condition of that type in an object's status."""
    return next((c for c in raw["status"].get("conditions", ()) if c["type"] == kind), None)


def running(pod: wasmlet.Pod) -> bool:
    return pod.phase == "Running"
