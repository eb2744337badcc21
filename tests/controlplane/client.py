"""A client of the embedded control plane that hides nothing (statuses, raw objects, lines of watches), and kubectl."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import orjson
import yaml
from yarl import URL

from wasmlet.testing import ControlPlane

STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
PODS = "/api/v1/namespaces/default/pods"

Object = dict[str, Any]


def pod(name: str = "p", **spec: Any) -> Object:
    """A pod as a user writes it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "img:1"}], **spec},
    }


def node(
    name: str, *, pods: str = "10", cpu: str = "4", memory: str = "4Gi", ready: bool = True, **spec: Any
) -> Object:
    """A node that is ready, as a kubelet registers it."""
    room = {"cpu": cpu, "memory": memory, "pods": pods}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {
            "capacity": room,
            "allocatable": room,
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        },
    }


@attrs.define
class Lines:
    """The events of a watch, one after the other."""

    response: aiohttp.ClientResponse
    rest: bytes = b""

    async def next(self, seconds: float = 5.0) -> Object:
        """The next event; StopAsyncIteration at the end of the watch."""
        async with asyncio.timeout(seconds):
            while b"\n" not in self.rest:
                chunk = await self.response.content.readany()
                if not chunk:
                    raise StopAsyncIteration
                self.rest += chunk
        line, _, self.rest = self.rest.partition(b"\n")
        event: Object = orjson.loads(line)
        return event

    async def take(self, count: int) -> list[tuple[str, str]]:
        """The next events as (type, name)."""
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]

    async def ended(self) -> bool:
        """Whether the watch ends now."""
        try:
            await self.next()
        except StopAsyncIteration:
            return True
        return False


@attrs.define
class Api:
    """Requests under one identity."""

    session: aiohttp.ClientSession
    server: str
    headers: dict[str, str]

    async def __call__(
        self, method: str, path: str, body: Any = None, *, media: str = "application/json", **headers: str
    ) -> tuple[int, Any]:
        """(status, body): JSON is parsed, anything else is text."""
        data = body if body is None else io.BytesIO(body if isinstance(body, bytes) else orjson.dumps(body))
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        async with self.session.request(
            method,
            URL(self.server + path, encoded=True),
            data=data,
            headers={"Content-Type": media, **self.headers, **named},
        ) as answer:
            text = await answer.read()
            is_json = "json" in answer.content_type
            return answer.status, orjson.loads(text) if is_json else text.decode()

    async def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The body of an answer that has to be a success."""
        status, answer = await self(method, path, body, **more)
        assert status < 300, answer
        return answer

    @contextlib.asynccontextmanager
    async def watch(self, path: str, *, accept: str = "application/json", **params: str) -> AsyncIterator[Lines]:
        async with self.session.get(
            self.server + path, params={"watch": "1", **params}, headers={"Accept": accept, **self.headers}
        ) as answer:
            assert answer.status == 200, await answer.text()
            yield Lines(answer)


@contextlib.asynccontextmanager
async def open_api(plane: ControlPlane, kubeconfig: Path) -> AsyncIterator[Api]:
    """A client of a kubeconfig."""
    config = yaml.safe_load(await asyncio.to_thread(kubeconfig.read_text))
    user = config["users"][0]["user"]
    context = ssl.create_default_context(cafile=str(plane.ca_file))
    headers = {}
    if "token" in user:
        headers["Authorization"] = f"Bearer {user['token']}"
    else:
        pair = kubeconfig.with_suffix(".pem")
        data = user["client-certificate-data"], user["client-key-data"]
        pair.write_bytes(b"".join(base64.b64decode(part) for part in data))
        context.load_cert_chain(pair)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield Api(session, plane.url, headers)


@attrs.frozen
class Kubectl:
    """The real kubectl against the embedded control plane."""

    program: Path
    kubeconfig: Path
    home: Path

    async def start(self, *arguments: str, stdin: bytes | None = None) -> asyncio.subprocess.Process:
        environment = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.home), "PATH": "/usr/bin:/bin"}
        return await asyncio.create_subprocess_exec(
            self.program,
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, stdin: Any = None) -> tuple[int, str, str]:
        """(exit code, stdout, stderr); `stdin` is an object or bytes."""
        data = stdin if isinstance(stdin, bytes | None) else orjson.dumps(stdin)
        process = await self.start(*arguments, stdin=data)
        async with asyncio.timeout(60):
            out, err = await process.communicate(data)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def __call__(self, *arguments: str, stdin: Any = None) -> str:
        """What kubectl prints, where it has to succeed."""
        code, out, err = await self.run(*arguments, stdin=stdin)
        assert code == 0, f"kubectl {' '.join(arguments)}: {err}{out}"
        return out
