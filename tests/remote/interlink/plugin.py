"""A plugin of interLink for tests, as strict as the public SDK for Python behind FastAPI, with its traps.

It validates what it is sent by the SDK's models: what is required, what may be null, which type. Like FastAPI it says
in a 422 what was wrong, and repeats what it was sent there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import attrs
import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer

STARTED = "2026-01-01T10:00:00Z"

# Of each key: the type, or a list with the type of its items, or a name of another model; "!" is required, "?" may be
# null. Keys that are not here are ignored, as pydantic does.
MODELS: dict[str, dict[str, tuple[str, Any]]] = {
    "Pod": {"pod": ("!", "PodRequest"), "container": ("!", ["Volume"])},
    "PodRequest": {"metadata": ("!", "Metadata"), "spec": ("!", "PodSpec")},
    "Metadata": {
        "name": ("?", str), "namespace": ("?", str), "uid": ("?", str), "annotations": ("?", dict),
        "labels": ("?", dict),
    },
    "PodSpec": {
        "containers": ("!", ["Container"]), "initContainers": ("?", ["Container"]), "volumes": ("?", ["PodVolume"]),
        "restartPolicy": ("?", str), "terminationGracePeriodSeconds": ("?", int),
    },
    "Container": {
        "name": ("!", str), "image": ("!", str), "tag": ("", str), "command": ("?", [str]), "args": ("?", [str]),
        "resources": ("?", dict), "volumeMounts": ("?", ["VolumeMount"]), "env": ("?", ["EnvVar"]),
    },
    "VolumeMount": {"name": ("!", str), "mountPath": ("!", str), "subPath": ("?", str), "readOnly": ("?", bool)},
    "EnvVar": {"name": ("!", str), "value": ("?", str), "valueFrom": ("?", "EnvVarSource")},
    "EnvVarSource": {"configMapKeyRef": ("?", "KeySelector"), "secretKeyRef": ("?", "KeySelector")},
    "KeySelector": {"key": ("!", str), "name": ("?", str), "optional": ("?", bool)},
    "PodVolume": {
        "name": ("!", str), "emptyDir": ("?", dict), "secret": ("?", "SecretSource"), "configMap": ("?", "MapSource"),
    },
    "SecretSource": {"secretName": ("!", str), "items": ("?", ["KeyToPath"]), "defaultMode": ("?", int)},
    "MapSource": {"name": ("!", str), "items": ("?", ["KeyToPath"]), "defaultMode": ("?", int)},
    "KeyToPath": {"key": ("!", str), "path": ("!", str), "mode": ("?", int)},
    "Volume": {
        "name": ("!", str), "configMaps": ("?", ["ConfigMap"]), "secrets": ("?", ["Secret"]), "emptyDirs": ("?", [str]),
    },
    "ConfigMap": {"metadata": ("!", "Metadata"), "data": ("!?", dict), "binaryData": ("?", dict)},
    "Secret": {"metadata": ("!", "Metadata"), "data": ("?", dict)},
    "LogRequest": {
        "Namespace": ("!", str), "PodUID": ("!", str), "PodName": ("!", str), "ContainerName": ("!", str),
        "Opts": ("!", "LogOpts"),
    },
    "LogOpts": {
        "Tail": ("?", int), "LimitBytes": ("?", int), "Timestamps": ("?", bool), "Previous": ("!?", bool),
        "Follow": ("!?", bool), "SinceTime": ("?", datetime),
    },
}  # fmt: skip


def problems(model: Any, value: Any, path: tuple[Any, ...] = ("body",)) -> list[dict[str, Any]]:
    """What is wrong with a value, as FastAPI says it; nothing where it is a `model`."""
    if isinstance(model, list):
        if not isinstance(value, list):
            return [{"loc": path, "msg": "Input should be a valid list", "input": value}]
        return [found for i, item in enumerate(value) for found in problems(model[0], item, (*path, i))]
    if isinstance(model, type):
        right = isinstance(value, str if model is datetime else model) and not (
            model is int and isinstance(value, bool)
        )
        return [] if right else [{"loc": path, "msg": f"Input should be a valid {model.__name__}", "input": value}]
    if not isinstance(value, dict):
        return [{"loc": path, "msg": "Input should be a valid dictionary", "input": value}]
    found = []
    for key, (flags, kind) in MODELS[model].items():
        if key not in value:
            found += [{"loc": (*path, key), "msg": "Field required", "input": value}] if "!" in flags else []
        elif value[key] is not None or "?" not in flags:
            found += problems(kind, value[key], (*path, key))
    return found


@attrs.define
class Job:
    """A pod that the plugin runs."""

    pod: dict[str, Any]
    content: list[dict[str, Any]]
    state: dict[str, Any] = attrs.field(factory=lambda: {"running": {"startedAt": STARTED}})
    log: bytes = b"one\ntwo\n"


class StrictPlugin:
    """The plugin. A test sets what it is to do differently."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.created: list[str] = []
        """UID of each job that was begun, in order."""
        self.asked: list[tuple[str, str, Any]] = []
        """Method, path and body of each request."""
        self.wants_list = False
        self.snake = False
        """Answers have keys as Python names them."""
        self.plain_logs = True
        self.cached: list[dict[str, Any]] | None = None
        """What `/status` answers, whatever it is asked."""
        self.hang: set[str] = set()
        """Paths that never answer."""
        self.lose: set[str] = set()
        """Paths whose answer is lost once what was asked for is done."""
        self.answers: dict[str, web.Response] = {}
        """What a path answers instead."""
        self.endless: set[str] = set()
        """Paths whose answer does not end."""
        self.following = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 28)
        app.add_routes(
            [
                web.post("/create", self._create),
                web.post("/delete", self._delete),
                web.get("/status", self._status),
                web.get("/getLogs", self._logs),
            ]
        )
        app.middlewares.append(self._faults)
        return app

    @web.middleware
    async def _faults(self, request: web.Request, handler: Any) -> web.StreamResponse:
        body = await request.read()
        self.asked.append((request.method, request.path, orjson.loads(body) if body else None))
        if request.path in self.hang:
            await asyncio.Event().wait()
        if request.path in self.endless:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b"x" * 65536)
        if request.path in self.answers:
            told = self.answers[request.path]
            return web.Response(status=told.status, body=told.body, content_type=told.content_type)
        response = await handler(request)
        if request.path in self.lose and request.transport is not None:
            self.lose.discard(request.path)
            request.transport.abort()
        return response

    async def _create(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if found := problems(["Pod"] if self.wants_list else "Pod", body):
            return web.json_response({"detail": found}, status=422)
        pod = body[0] if self.wants_list else body
        uid = pod["pod"]["metadata"]["uid"]
        self.created.append(uid)
        self.jobs[uid] = Job(pod["pod"], pod["container"])
        answer = self._spelt({"PodUID": uid, "PodJID": f"job-{len(self.created)}"})
        return web.json_response([answer] if self.wants_list else answer)

    async def _delete(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if found := problems("PodRequest", body):
            return web.json_response({"detail": found}, status=422)
        if self.jobs.pop(uid := body["metadata"]["uid"], None) is None:
            return web.json_response({"detail": "No containers found for UUID"}, status=404)
        return web.json_response(f"Pod '{uid}' deleted")

    async def _status(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if found := problems(["PodRequest"], body):
            return web.json_response({"detail": found}, status=422)
        if self.cached is not None:
            return web.json_response(self.cached)
        if not body:
            return web.Response(status=500, text="Internal Server Error")
        uid = body[0]["metadata"]["uid"]  # of the first alone
        if uid not in self.jobs:
            return web.json_response({"detail": "No containers found for UUID"}, status=404)
        return web.json_response([self.status_of(uid)])

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        if found := problems("LogRequest", body):
            return web.json_response({"detail": found}, status=422)
        job = self.jobs.get(body["PodUID"])
        if job is None:
            return web.json_response({"detail": "No containers found for UUID"}, status=404)
        if not self.plain_logs:
            return web.json_response(job.log.decode())
        if not body["Opts"]["Follow"]:
            return web.Response(body=job.log, content_type="text/plain")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await response.write(job.log)
        await self.following.wait()
        await response.write(b"three\n")
        return response

    def status_of(self, uid: str) -> dict[str, Any]:
        """The status of a job, as `/status` has it."""
        pod = self.jobs[uid].pod
        empty = {"terminated": None, "running": None, "waiting": None}
        state = empty | {key: self._spelt(value) for key, value in self.jobs[uid].state.items()}
        meta = pod["metadata"]
        containers = [{"name": c["name"], "state": state} for c in pod["spec"]["containers"]]
        return self._spelt({"name": meta["name"], "UID": uid, "namespace": meta["namespace"], "JID": "j"}) | {
            "containers": containers
        }

    def end(self, uid: str, code: int) -> None:
        """The job's containers end."""
        self.jobs[uid].state = {"terminated": {"exitCode": code, "reason": None}}

    def _spelt(self, answer: dict[str, Any]) -> dict[str, Any]:
        names = {"PodUID": "pod_uid", "PodJID": "pod_jid", "UID": "uid", "JID": "jid", "exitCode": "exit_code"}
        names["startedAt"] = "started_at"
        return {names.get(key, key) if self.snake else key: value for key, value in answer.items()}


@asynccontextmanager
async def serving(plugin: StrictPlugin, port: int | None = None) -> AsyncIterator[str]:
    """The plugin, listening on a loopback address; gives its URL."""
    server = TestServer(plugin.app(), host="127.0.0.1", port=port)
    await server.start_server(shutdown_timeout=0.1)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.close()
