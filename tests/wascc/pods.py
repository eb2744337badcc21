"""Pods of actors, and what they answer."""

from __future__ import annotations

from typing import Any

from aiohttp import ClientTimeout

from tests.runtime.harness import Runtime, pod_of
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey

NODE = Inputs(node_name="node", node_ips=["127.0.0.1"])
PORTS = [{"name": "http", "containerPort": 8080}]
LATE = ClientTimeout(30)
PREFIX = "wascc.wasmlet.dev/"


def actor_pod(image: str, annotations: dict[str, str] | None = None, *, name: str = "web", **more: Any) -> Pod:
    """A pod with one actor at port 8080; annotations without `/` have waSCC's prefix."""
    named = {key if "/" in key else PREFIX + key: value for key, value in (annotations or {}).items()}
    pod = pod_of(name=name, image=image, **{"ports": PORTS, **more})
    body = {key: value for key, value in pod.raw["spec"]["containers"][0].items() if key != "args" or value}
    spec = {**pod.raw["spec"], "containers": [body]}
    return Pod({**pod.raw, "spec": spec, "metadata": {**pod.raw["metadata"], "annotations": named}})


async def serving(node: Runtime, pod: Pod) -> tuple[PodKey, str]:
    """The pod once it runs, and where it serves."""
    key = await node.create(pod, NODE)
    await node.running(key)
    (ip,) = (await node.provider.pod_status(key)).pod_ips
    return key, f"http://{ip}:8080"
