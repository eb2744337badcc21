"""`/openapi.json`: the API of an agent in OpenAPI 3.1, made from the messages of the protocol."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from wasmlet.provider import NodeStatus
from wasmlet_agent.pods.store import UID
from wasmlet_agent.protocol import PREFIX, SEQUENCE_HEADER, SESSION_HEADER
from wasmlet_agent.protocol.failures import STATUSES, Failure
from wasmlet_agent.protocol.messages import (
    Accepted,
    BatchedAnswer,
    BatchedDelete,
    BatchedForget,
    BatchedPod,
    Beat,
    BlobAnswer,
    EndedLine,
    EventLine,
    Hello,
    ImageAnswer,
    ImageRequest,
    ListedPod,
    NodeLine,
    PodList,
    PodRequest,
    SessionAnswer,
    SessionRequest,
    StatusLine,
)
from wasmlet_agent.schemas import Schema, Schemas

_MOST = 2**53
_NAME = {"type": "string", "minLength": 1}
_DIGEST = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
_FLAG = {"type": "string", "enum": ["", "1", "true", "0", "false"]}
_COUNT = {"type": "integer", "minimum": 0, "maximum": _MOST}
_SECONDS = {"type": "number", "minimum": 0, "maximum": _MOST}
_CONTAINER = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
_POD: Schema = {
    "description": "A Pod as the Kubernetes API has it.",
    "type": "object",
    "required": ["metadata", "spec"],
    "properties": {
        "metadata": {
            "type": "object",
            "required": ["namespace", "name", "uid"],
            "properties": {name: {"type": "string"} for name in ("namespace", "name", "uid")},
        },
        "spec": {
            "type": "object",
            "required": ["containers"],
            "properties": {"containers": {"type": "array", "minItems": 1, "items": _CONTAINER}},
        },
    },
}


@attrs.frozen
class _Operation:
    """One operation of the API: its parameters, its body, and its answers.

    Attributes:
        answer, body: a class of `messages`, or a media type for bytes.
        errors: HTTP statuses of errors, in addition to those that every operation of its kind may have.
        session: whether it belongs to a session.
        changes: whether it changes something, and so has a sequence number.
    """

    summary: str
    answer: type[Any] | str | None = None
    errors: Sequence[int] = ()
    body: type[Any] | str | None = None
    query: Mapping[str, Schema] = attrs.field(factory=dict)
    required: Sequence[str] = ()
    status: int = 200
    session: bool = True
    changes: bool = False


_PODS = PREFIX + "/pods"
_POD_PATH = _PODS + "/{uid}"
_CONTAINER_PATH = _POD_PATH + "/containers/{container}"
_STREAM = dict.fromkeys(("stdin", "stdout", "stderr", "tty"), _FLAG)
_OPERATIONS: Mapping[tuple[str, str], _Operation] = {
    ("get", "/healthz"): _Operation("Whether the provider is well.", Accepted, [503], session=False),
    ("post", PREFIX + "/session"): _Operation(
        "Take the agent over: every older session is over.", SessionAnswer, [409, 412, 413, 500, 503],
        body=SessionRequest, session=False,
    ),
    ("get", PREFIX + "/node"): _Operation("What the provider says of the node.", NodeStatus),
    ("get", PREFIX + "/stats"): _Operation("A kubelet's /stats/summary.", "application/json", [501]),
    ("get", PREFIX + "/changes"): _Operation(
        "A line of JSON for each change that is newer than a number, and for each that comes; see `Line`.",
        "application/x-ndjson", query={"instance": _NAME, "after": _COUNT},
    ),
    ("put", PREFIX + "/images"): _Operation(
        "Take an image that the node loop brings, once all of its blobs are here.", ImageAnswer, [413, 500, 501],
        body=ImageRequest,
    ),
    ("put", PREFIX + "/blobs/{digest}"): _Operation(
        "Take a piece of a blob; one that begins elsewhere than where the last one ended is passed over.", BlobAnswer,
        [413, 500, 501], body="application/octet-stream", query={"size": _COUNT, "offset": _COUNT},
        required=["size", "offset"],
    ),
    ("get", _PODS): _Operation("Every pod.", PodList),
    ("post", _PODS): _Operation(
        "Create several pods: two lines for each, a `BatchedPod` and a `PodRequest`; a `BatchedAnswer` for each.",
        "application/x-ndjson", [413, 500], body="application/x-ndjson",
    ),
    ("post", PREFIX + "/deletes"): _Operation(
        "End several pods: a line for each, a `BatchedDelete`; a `BatchedAnswer` for each. See `delete` of one.",
        "application/x-ndjson", [413, 500], body="application/x-ndjson", status=202,
    ),
    ("post", PREFIX + "/forgets"): _Operation(
        "The API has the last status of several pods: a line for each, a `BatchedForget`; a `BatchedAnswer` for each.",
        "application/x-ndjson", [413, 500], body="application/x-ndjson",
    ),
    ("get", _POD_PATH): _Operation("One pod.", ListedPod, [404]),
    ("put", _POD_PATH): _Operation(
        "Create the pod; one that is here goes on as it is.", Accepted, [413, 422, 500], body=PodRequest, changes=True
    ),
    ("patch", _POD_PATH): _Operation(
        "Hand over what has changed.", Accepted, [404, 413, 422, 500], body=PodRequest, changes=True
    ),
    ("delete", _POD_PATH): _Operation(
        "End the pod; its end comes among the changes. With `keep` its logs stay until it is deleted without.",
        Accepted, [404, 500], status=202, changes=True,
        query={"grace": _SECONDS, "namespace": _NAME, "name": _NAME, "keep": _FLAG},
        required=["grace"],
    ),
    ("post", _POD_PATH + "/forget"): _Operation("The API has the last status of the pod.", Accepted, changes=True),
    ("get", _CONTAINER_PATH + "/logs"): _Operation(
        "The log of a container.", "application/octet-stream", [404, 501],
        query={
            **dict.fromkeys(("follow", "previous", "timestamps"), _FLAG),
            "since": {"type": "string", "format": "date-time"},
            "tail": _COUNT,
            "limit": _COUNT | {"minimum": 1},
        },
    ),
    ("get", _CONTAINER_PATH + "/exec"): _Operation(
        "Run a command: a websocket with binary messages.", errors=[404, 501], status=101,
        query={"command": {"type": "array", "minItems": 1, "items": _NAME}, **_STREAM}, required=["command"],
    ),
    ("get", _CONTAINER_PATH + "/attach"): _Operation(
        "Connect to a container: a websocket with binary messages.", errors=[404, 501], status=101, query=_STREAM
    ),
    ("get", _POD_PATH + "/portforward"): _Operation(
        "Connect to a port: a websocket with binary messages.", errors=[404, 501], status=101,
        query={"port": {"type": "integer", "minimum": 1, "maximum": 65535}}, required=["port"],
    ),
}  # fmt: skip


def document() -> Schema:
    """The whole document."""
    schemas = Schemas()
    paths: dict[str, Schema] = {}
    for (method, path), operation in _OPERATIONS.items():
        paths.setdefault(path, {})[method] = _described(path, operation, schemas)
    lines = [schemas.of(line) for line in (Hello, StatusLine, EventLine, NodeLine, EndedLine, Beat)]
    schemas.found["Line"] = {"oneOf": lines, "description": "A line of the changes; it has its `type`, too."}
    for line in (BatchedPod, BatchedDelete, BatchedForget, BatchedAnswer):
        schemas.of(line)
    schemas.found["PodRequest"]["properties"]["pod"] = _POD
    return {
        "openapi": "3.1.0",
        "info": {"title": "wasmlet-agent", "version": importlib.metadata.version("wasmlet-remote")},
        "security": [{"token": []}, {"certificate": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.found,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
        },
    }


def _described(path: str, operation: _Operation, schemas: Schemas) -> Schema:
    found: Schema = {"summary": operation.summary, "parameters": _parameters(path, operation)}
    if isinstance(operation.body, str):
        found["requestBody"] = {"content": {operation.body: {}}}
    elif operation.body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas.of(operation.body)}},
        }
    answers: dict[str, Schema] = {str(operation.status): _answer(operation.answer, schemas)}
    for status in sorted({*operation.errors, *_errors(path, operation)}):
        answers[str(status)] = _answer(Failure, schemas, _names(status))
    found["responses"] = answers
    if path == "/healthz":
        found["security"] = []
    return found


def _errors(path: str, operation: _Operation) -> Sequence[int]:
    if path == "/healthz":
        return ()
    return (400, 401, 409, 503) if operation.session else (400, 401)


def _names(status: int) -> str:
    return ", ".join(name for name, code in STATUSES.items() if code == status) or "Failed"


def _answer(kind: type[Any] | str | None, schemas: Schemas, text: str = "Done.") -> Schema:
    if kind is None:
        return {"description": "A websocket."}
    if isinstance(kind, str):
        return {"description": text, "content": {kind: {}}}
    return {"description": text, "content": {"application/json": {"schema": schemas.of(kind)}}}


def _parameters(path: str, operation: _Operation) -> list[Schema]:
    found = []
    if "{uid}" in path:
        found.append(_parameter("uid", "path", {"type": "string", "pattern": f"^{UID}$"}, required=True))
    if "{digest}" in path:
        found.append(_parameter("digest", "path", _DIGEST, required=True))
    if "{container}" in path:
        found.append(_parameter("container", "path", _NAME, required=True))
    if operation.session:
        found.append(_parameter(SESSION_HEADER, "header", _COUNT, required=True))
    if operation.changes:
        found.append(_parameter(SEQUENCE_HEADER, "header", _COUNT | {"minimum": 1}, required=True))
    for name, schema in operation.query.items():
        found.append(_parameter(name, "query", schema, required=name in operation.required))
    return found


def _parameter(name: str, place: str, schema: Schema, *, required: bool) -> Schema:
    return {"name": name, "in": place, "required": required, "schema": schema}
