"""Follows workloads and Services for `wasmlet demo`: prints how many pods are available, and what a Service answers.

In the demo nothing routes the addresses of Services. So requests go straight to a pod, which is found in the
EndpointSlices of the Service. `kubectl port-forward` does the same: it chooses a pod by itself.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

import attrs
import orjson

from wasmlet.cli.demo.follow import Say, why
from wasmlet.kube import Client
from wasmlet.model.pod import Pod

_PATIENCE_SECONDS = 90.0
"""How long pods may take to be ready: an interpreter is compiled for ten seconds where nothing else is done."""
_REQUEST_SECONDS = 5.0
_BODY = 4096
"""How many bytes of an answer are shown."""
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
WORKLOADS = {"Deployment": "deployments", "ReplicaSet": "replicasets", "StatefulSet": "statefulsets"}
"""Kinds whose pods run until they are deleted, with their names in paths."""

Object = dict[str, Any]


@attrs.frozen
class Serving:
    """A pod that answers for a Service.

    Attributes:
        address: the pod's.
        port: the pod's, where it listens.
    """

    address: str
    port: int

    @property
    def url(self) -> str:
        """Where HTTP requests go."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}/"


def serves(service: Object) -> bool:
    """Whether a Service chooses pods that answer TCP."""
    spec = service.get("spec") or {}
    ports = [port for port in spec.get("ports") or () if port.get("protocol", "TCP") == "TCP"]
    return bool(spec.get("selector") and ports and spec.get("type") != "ExternalName")


def chosen(service: Object, pod: Pod) -> bool:
    """Whether a Service chooses that pod."""
    same = service["metadata"]["namespace"] == pod.namespace
    return same and all(pod.labels.get(key) == value for key, value in service["spec"]["selector"].items())


async def rolled_out(client: Client, workload: Object, say: Say) -> str | None:
    """Tell how many pods of a workload are available, until all are.

    Returns:
        What went wrong; None where all pods are available.
    """
    kind, meta = str(workload["kind"]), workload["metadata"]
    what = f"{kind.lower()}/{meta['name']}"
    path = f"/apis/apps/v1/namespaces/{quote(meta['namespace'], safe='')}/{WORKLOADS[kind]}"
    told = ""

    def complete(found: Object) -> bool:
        nonlocal told
        wanted, status = int(found["spec"].get("replicas") or 0), found.get("status") or {}
        available = int(status.get("availableReplicas") or 0)
        if (text := f"{what:<14} {available} of {wanted} pods are available") != told:
            say(told := text)
        return available >= wanted and status.get("observedGeneration", 0) >= found["metadata"]["generation"]

    if await _until(client, path, {"fieldSelector": f"metadata.name={meta['name']}"}, complete) is None:
        return await _reasons(client, workload, f"{what}: not all pods are available after {_PATIENCE_SECONDS:g} s")
    return None


async def completed(client: Client, job: Object, say: Say) -> str | None:
    """Tell how many pods of a Job have succeeded, until it has ended.

    Returns:
        What went wrong; None where the Job is complete.
    """
    meta = job["metadata"]
    what = f"job/{meta['name']}"
    path = f"/apis/batch/v1/namespaces/{quote(meta['namespace'], safe='')}/jobs"
    told = ""

    def ended(found: Object) -> bool:
        nonlocal told
        status, wanted = found.get("status") or {}, found["spec"].get("completions") or 1
        if (text := f"{what:<14} {status.get('succeeded') or 0} of {wanted} pods have succeeded") != told:
            say(told := text)
        return _outcome(found) is not None

    found = await _until(client, path, {"fieldSelector": f"metadata.name={meta['name']}"}, ended)
    if found is None:
        return await _reasons(client, job, f"{what}: it has not ended after {_PATIENCE_SECONDS:g} s")
    outcome = _outcome(found) or {}
    return None if outcome["type"] == "Complete" else f"{what}: {outcome['message']}"


def _outcome(job: Object) -> Object | None:
    """The condition that says how a Job has ended; None where it has not."""
    told = (job.get("status") or {}).get("conditions") or ()
    return next((item for item in told if item["type"] in ("Complete", "Failed") and item["status"] == "True"), None)


async def _reasons(client: Client, workload: Object, what: str) -> str:
    """What went wrong, with what its first pod that is not ready says of itself."""
    labels = (workload["spec"]["selector"].get("matchLabels") or {}).items()
    path = f"/api/v1/namespaces/{quote(workload['metadata']['namespace'], safe='')}/pods"
    listed = await client.get(path, labelSelector=",".join(f"{key}={value}" for key, value in labels))
    for pod in map(Pod, listed["items"]):
        if not any(item["type"] == "Ready" and item["status"] == "True" for item in pod.status.get("conditions") or ()):
            return why(pod, f"{what}; pod {pod.name} is {pod.phase}") + await _warning(client, pod)
    return what


async def _warning(client: Client, pod: Pod) -> str:
    """The last warning of a pod, as that its probe failed."""
    path = f"/api/v1/namespaces/{quote(pod.namespace, safe='')}/events"
    listed = await client.get(path, fieldSelector=f"involvedObject.uid={pod.uid},type=Warning")
    messages = [str(item.get("message", "")) for item in listed["items"]]
    return f"; {messages[-1]}" if messages else ""


async def answer(client: Client, service: Object, say: Say, hint: Say) -> str | None:
    """Wait until a pod of a Service is ready, show what it answers, and say how to ask it.

    Args:
        hint: takes the lines to type.

    Returns:
        What went wrong; None where there is an answer.
    """
    meta = service["metadata"]
    what = f"service/{meta['name']}"
    path, label = _SLICES.format(quote(meta["namespace"], safe="")), f"kubernetes.io/service-name={meta['name']}"
    found = await _until(client, path, {"labelSelector": label}, lambda item: _ready(item) is not None)
    serving = _ready(found) if found is not None else None
    if serving is None:
        return f"{what}: no pod of it is ready to serve after {_PATIENCE_SECONDS:g} s"
    try:
        said = await asyncio.to_thread(_ask, serving)
    except (OSError, http.client.HTTPException) as error:
        return f"{what}: {serving.url} does not answer: {error or type(error).__name__}"
    say(f"{what:<14} answers at {serving.url}")
    for line in said:
        say(f"  | {line}")
    port = next(int(item["port"]) for item in service["spec"]["ports"] if item.get("protocol", "TCP") == "TCP")
    local = port if port > 1023 else 8080
    space = f" -n {meta['namespace']}" if meta["namespace"] != "default" else ""
    hint(f"  curl {serving.url}")
    hint(f"  kubectl{space} port-forward {what} {local}:{port}")
    return None


def _ready(slice_: Object) -> Serving | None:
    """The first pod of an EndpointSlice that is ready."""
    ports = [item for item in slice_.get("ports") or () if item.get("protocol", "TCP") == "TCP" and item.get("port")]
    for endpoint in slice_.get("endpoints") or ():
        if ports and (endpoint.get("conditions") or {}).get("ready"):
            return Serving(endpoint["addresses"][0], int(ports[0]["port"]))
    return None


def _ask(serving: Serving) -> list[str]:
    """The status and the first lines of what a pod answers to GET /; blocks."""
    connection = http.client.HTTPConnection(serving.address, serving.port, timeout=_REQUEST_SECONDS)
    try:
        connection.request("GET", "/", headers={"User-Agent": "wasmlet-demo"})
        answered = connection.getresponse()
        text = answered.read(_BODY).decode("utf-8", "replace")
        return [f"HTTP {answered.status} {answered.reason}", *text.splitlines()]
    finally:
        connection.close()


async def _until(client: Client, path: str, params: dict[str, str], hold: Callable[[Object], bool]) -> Object | None:
    """Follow the objects of a list until `hold` is true for one, and return it; None if that takes too long."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS), aclosing(_versions(client, path, params)) as versions:
            async for found in versions:
                if hold(found):
                    return found
    except TimeoutError:
        pass
    return None


async def _versions(client: Client, path: str, params: dict[str, str]) -> AsyncGenerator[Object, None]:
    """The objects of a list and what becomes of them, one after the other."""
    listed = await client.get(path, **params)
    for item in listed["items"]:
        yield item
    since = {"watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"]}
    async with client.stream(path, params | since) as content:
        async for line in content:
            event = orjson.loads(line)
            if event["type"] != "DELETED":
                yield event["object"]
