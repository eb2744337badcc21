"""What every check has at hand: an API server, a namespace of its own on a node, and words for what it awaits.

Nothing here looks into the node: checks see what any client of the API sees.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import attrs
import orjson

from tests.conformance.machine import Machine
from tests.conformance.reading import Raw, begun, condition, state
from wasmlet.kube import Client, errors
from wasmlet.kube.client import MERGE_PATCH, STRATEGIC_PATCH

SECONDS = 60.0
"""Patience with what should take no time."""


@attrs.define
class Kube:
    """A namespace, and pods in it that are bound to one node."""

    machine: Machine
    namespace: str
    node: str
    clock: Any = None

    @property
    def admin(self) -> Client:
        return self.machine.admin

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"

    # What is made and changed

    def container(self, *args: str, name: str = "c", **fields: Any) -> Raw:
        """A container that runs the driver with these instructions."""
        return {"name": name, "image": f"file://{self.machine.driver}", "args": list(args), **fields}

    def pod(self, *args: str, name: str = "p", spec: Raw | None = None, metadata: Raw | None = None, **c: Any) -> Raw:
        """A pod of one container, `c`, that is not restarted; `spec` and `metadata` go over that."""
        body = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "nodeName": self.node,
            "tolerations": [{"operator": "Exists"}],
            "containers": [self.container(*args, **c)],
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, **(metadata or {})},
            "spec": body | (spec or {}),
        }

    async def serve(self, *args: str, **fields: Any) -> Raw:
        """Create a pod that runs the web server, with a port of the name `web`; fields as for `create`."""
        ports = {"ports": [{"name": "web", "containerPort": 8080}]}
        return await self.create(*args, **(ports | fields), image=f"file://{self.machine.web}")

    async def create(self, *args: str, **fields: Any) -> Raw:
        """Create the pod that `pod` makes of these."""
        return await self.make("pods", self.pod(*args, **fields))

    def gate(self, *, optional: bool = True, **spec: Any) -> Raw:
        """For `create`: a volume at /go that the test fills with `open_gate`, so that a guest can await it there."""
        volume = {"name": "go", "configMap": {"name": "gate", "optional": optional}}
        return {"volumeMounts": [{"name": "go", "mountPath": "/go"}], "spec": {"volumes": [volume], **spec}}

    async def open_gate(self) -> None:
        """What awaits /go/on to be "now" goes on."""
        await self.config_map("gate", on="now")

    async def make(self, kind: str, body: Raw) -> Raw:
        """Create an object of the core API in the namespace."""
        return await self.admin.create(f"{self.path}/{kind}", body)

    async def config_map(self, name: str, **data: str) -> None:
        await self.make("configmaps", {"metadata": {"name": name}, "data": data})

    async def secret(self, name: str, **data: str) -> None:
        await self.make("secrets", {"metadata": {"name": name}, "stringData": data})

    async def get(self, name: str = "p", kind: str = "pods") -> Raw:
        return await self.admin.get(f"{self.path}/{kind}/{name}")

    async def patch(self, body: Any, name: str = "p", kind: str = "pods", how: str = MERGE_PATCH) -> Raw:
        """Change an object; `name` may have a subresource behind it."""
        return await self.admin.patch(f"{self.path}/{kind}/{name}", body, how)

    async def change_container(self, name: str = "p", *, to: str = "", **fields: Any) -> Raw:
        """Change fields of the container `c` of a pod, through the subresource `to` where one is named."""
        body = {"spec": {"containers": [{"name": "c", **fields}]}}
        return await self.patch(body, f"{name}/{to}" if to else name, how=STRATEGIC_PATCH)

    async def delete(self, name: str = "p", kind: str = "pods", **options: Any) -> None:
        await self.admin.delete(f"{self.path}/{kind}/{name}", options or None)

    async def remove(self, name: str = "p", **options: Any) -> None:
        """Delete a pod and return when it is gone."""
        await self.delete(name, **options)
        await self.gone(name)

    async def clear(self) -> None:
        """Delete every pod at once, and return when none is left."""
        for pod in (await self.admin.get(f"{self.path}/pods"))["items"]:
            name = pod["metadata"]["name"]
            try:
                if pod["metadata"].get("finalizers"):
                    await self.patch({"metadata": {"finalizers": []}}, name)
                await self.delete(name, gracePeriodSeconds=0)
            except errors.ObjectNotFound:
                continue
        for pod in (await self.admin.get(f"{self.path}/pods"))["items"]:
            await self.gone(pod["metadata"]["name"])

    # What is awaited

    async def until(self, wanted: Callable[[Raw], Any], name: str = "p") -> Raw:
        """The pod as soon as it is as wanted, by watching it."""
        last: Raw = {}
        try:
            async with asyncio.timeout(SECONDS), aclosing(self.versions(name)) as versions:
                async for kind, last in versions:
                    if kind != "DELETED" and wanted(last):
                        return last
        except TimeoutError:
            status = orjson.dumps(last.get("status"), option=orjson.OPT_INDENT_2).decode()
            raise AssertionError(f"pod {name} never was as wanted; at last: {status}") from None
        raise AssertionError("the watch ended")

    async def versions(self, name: str, kind: str = "pods", since: str = "") -> AsyncGenerator[tuple[str, Raw], None]:
        """The object now (without `since`) and after each change, with the kind of the event."""
        selected = f"metadata.name={name}" if name else ""
        params = {"watch": "1", "fieldSelector": selected, "resourceVersion": since}
        async with self.admin.stream(f"{self.path}/{kind}", params) as content:
            async for line in content:
                event = orjson.loads(line)
                yield event["type"], event["object"]

    async def exists(self, kind: str, name: str) -> Raw:
        """An object once it is there."""
        async with asyncio.timeout(SECONDS), aclosing(self.versions(name, kind)) as versions:
            async for event, item in versions:
                if event != "DELETED":
                    return item
        raise AssertionError("the watch ended")

    async def gone(self, name: str = "p") -> None:
        """Return when no such pod exists."""
        async with asyncio.timeout(SECONDS):
            found = await self.admin.get(f"{self.path}/pods", fieldSelector=f"metadata.name={name}")
            if not found["items"]:
                return
            since = found["metadata"]["resourceVersion"]
            async with aclosing(self.versions(name, since=since)) as versions:
                async for kind, _ in versions:
                    if kind == "DELETED":
                        return

    async def running(self, name: str = "p", container: str = "c") -> Raw:
        """The pod once that container runs."""
        return await self.until(lambda pod: "running" in state(pod, container), name)

    async def ready(self, name: str = "p") -> Raw:
        return await self.until(lambda pod: condition(pod, "Ready").get("status") == "True", name)

    async def phase(self, phase: str, name: str = "p") -> Raw:
        return await self.until(lambda pod: pod["status"].get("phase") == phase, name)

    async def ended(self, name: str = "p") -> Raw:
        """The pod once it has succeeded or failed."""
        return await self.until(lambda pod: pod["status"].get("phase") in ("Succeeded", "Failed"), name)

    async def waiting(self, reason: str, name: str = "p", container: str = "c") -> Raw:
        """The pod once that container waits for that reason."""
        return await self.until(lambda pod: state(pod, container).get("waiting", {}).get("reason") == reason, name)

    async def refused(self, name: str = "p", container: str = "c") -> str:
        """Why the node does not run the pod: the message that names a field."""
        pod = await self.waiting("CreateContainerConfigError", name, container)
        assert pod["status"]["phase"] == "Pending"
        message = state(pod, container)["waiting"]["message"]
        event = await self.event("Failed", name, message)
        assert event["type"] == "Warning"
        return str(message)

    async def refuses(self, name: str, field: str, **fields: Any) -> None:
        """Create a pod of these, which the node refuses because of that field; remove it again."""
        await self.create("print", "must not run", name=name, **fields)
        assert field in await self.refused(name)
        assert await self.log_status(name) == 400
        await self.remove(name, gracePeriodSeconds=0)

    async def event(self, reason: str, name: str = "p", part: str = "") -> Raw:
        """The first event of that reason about the pod, with that text in its message."""
        async with asyncio.timeout(SECONDS), aclosing(self.versions("", "events")) as versions:
            async for _, event in versions:
                about = event["involvedObject"]["name"] == name and event["reason"] == reason
                if about and part in event.get("message", ""):
                    return event
        raise AssertionError("the watch ended")

    async def events(self, name: str = "p") -> list[Raw]:
        """The events about the pod, as yet."""
        found = await self.admin.get(f"{self.path}/events", fieldSelector=f"involvedObject.name={name}")
        items: list[Raw] = found["items"]
        return items

    # What containers say

    async def log(self, name: str = "p", **params: str) -> str:
        async with self.admin.stream(f"{self.path}/pods/{name}/log", params) as content:
            return (await content.read()).decode()

    async def log_status(self, name: str = "p", **params: str) -> int:
        """The HTTP status that the log is answered with."""
        try:
            await self.log(name, **params)
        except errors.ApiError as error:
            return error.status
        return 200

    async def output(self, name: str = "p", container: str = "c") -> str:
        """All that a container writes, to its end."""
        await self.until(lambda pod: begun(pod, container), name)
        async with asyncio.timeout(SECONDS):
            return await self.log(name, follow="true", container=container)

    async def logged(self, part: str, name: str = "p", container: str = "c") -> str:
        """What a container has written, once it has written that."""
        await self.until(lambda pod: begun(pod, container), name)
        text, params = "", {"follow": "true", "container": container}
        async with asyncio.timeout(SECONDS), self.admin.stream(f"{self.path}/pods/{name}/log", params) as content:
            async for line in content:
                text += line.decode()
                if part in text:
                    return text
        raise AssertionError(f"the log ended without {part!r}: {text!r}")

    async def kubectl(self, *arguments: str, code: int | None = 0, stdin: str | None = None) -> str:
        """What kubectl writes in the namespace, both streams; it has to end with that exit code."""
        command = [self.machine.kubectl, "--kubeconfig", self.machine.plane.kubeconfig, "-n", self.namespace]
        process = await asyncio.create_subprocess_exec(
            *command,
            *arguments,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(SECONDS):
                out, _ = await process.communicate(None if stdin is None else stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert code is None or process.returncode == code, f"kubectl {arguments}: {process.returncode} {out.decode()}"
        return out.decode()

    async def node_api(self, path: str) -> Any:
        """What the node's own API answers the administrator, as metrics-server and Prometheus ask it."""
        status = (await self.node_object())["status"]
        address = next(a["address"] for a in status["addresses"] if a["type"] == "InternalIP")
        url = f"https://{address}:{status['daemonEndpoints']['kubeletEndpoint']['Port']}/{path}"
        async with aiohttp.ClientSession() as session, session.get(url, ssl=self.machine.to_nodes) as answer:
            text = await answer.text()
            assert answer.status == 200, f"{path}: {answer.status} {text}"
            return json.loads(text) if text.startswith("{") else text

    async def metric(self, path: str, name: str, *parts: str) -> float:
        """The sum of the node's samples of that name with these parts in their labels, and the namespace's."""
        wanted = (f'namespace="{self.namespace}"', *parts)
        lines = str(await self.node_api(path)).splitlines()
        found = [line for line in lines if line.startswith(name + "{") and all(part in line for part in wanted)]
        return sum(float(line.rpartition("}")[2].split()[0]) for line in found)

    @asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """Bounds a wait that asks again and again."""
        async with asyncio.timeout(SECONDS):
            yield

    async def node_object(self) -> Raw:
        return await self.admin.get(f"/api/v1/nodes/{self.node}")


@asynccontextmanager
async def namespace(machine: Machine, node: str) -> AsyncIterator[Kube]:
    """A namespace of its own whose pods go to that node; every pod in it has to go at the end."""
    name = machine.name()
    await machine.admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    kube = Kube(machine, name, node)
    try:
        if machine.real:
            await kube.exists("serviceaccounts", "default")
        yield kube
    finally:
        await kube.clear()
        await machine.admin.delete(f"/api/v1/namespaces/{name}")
