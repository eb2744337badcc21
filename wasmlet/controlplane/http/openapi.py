"""OpenAPI v3, made at run time from the models of the kubernetes_asyncio that is installed.

`kubectl apply` looks here whether the server validates fields, `kubectl explain` reads the descriptions, and `fields`
validates by the same schemas. Importing the models takes half a second, so nothing happens before the first request,
and then in a thread.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib
import re
import threading
from collections.abc import Iterable
from typing import Any

import orjson
from aiohttp import web

from wasmlet.controlplane.extensions.definitions import Definitions
from wasmlet.controlplane.extensions.version import Version
from wasmlet.controlplane.http import discovery
from wasmlet.controlplane.objects.patching import PATCHES, STRATEGIC_PATCH
from wasmlet.controlplane.patches.strategic import rules
from wasmlet.controlplane.storage import status
from wasmlet.controlplane.storage.kinds import KINDS, Catalog, Kind
from wasmlet.controlplane.storage.status import Object

_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_REF = "#/components/schemas/"
_QUANTITIES = {
    "limits",
    "requests",
    "capacity",
    "allocatable",
    "divisor",
    "sizeLimit",
    "podFixed",
    "allocatedResources",
}
_PLAIN: dict[str, Object] = {
    "str": {"type": "string"},
    "int": {"type": "integer", "format": "int64"},
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "datetime": {"type": "string", "format": "date-time"},
    "date": {"type": "string"},
}
_INT_OR_STRING: Object = {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}
_QUANTITY: Object = {"oneOf": [{"type": "string"}, {"type": "number"}]}
_MODEL = re.compile(r"(?:Core|Events|Discovery|Authentication|Storage|Rbac|Admissionregistration)?V1(\w+)")


def schema_name(model: str) -> str:
    """The name of a model's schema: V1Pod is v1.Pod."""
    match = _MODEL.fullmatch(model)
    return f"v1.{match[1]}" if match else f"v1.{model}"


class _Strict:
    """Stands in for a client configuration, so that a setter checks what is required."""

    client_side_validation = True


def _description(getter: Any) -> str:
    """A model's description of a field, from the docstring of its getter."""
    lines = [line.replace("# noqa: E501", "").strip() for line in (getter.__doc__ or "").splitlines()[1:]]
    body = []
    for line in lines:
        if line.startswith(":return:"):
            break
        body.append(line)
    return "\n".join(body).strip()


class _Builder:
    """Turns model classes into schemas, each once."""

    def __init__(self) -> None:
        self._models: Any = importlib.import_module("kubernetes_asyncio.client.models")
        self.schemas: dict[str, Object] = {}

    def model_of(self, kind: Kind) -> str:
        first = f"V1{kind.kind}"
        if hasattr(self._models, first):
            return first
        prefix = kind.group.partition(".")[0].capitalize() or "Core"
        return f"{prefix}V1{kind.kind}"

    def _type(self, text: str, field: str) -> Object:
        """The schema of a type as models write it: str, list[X], dict(str, X), the name of a model."""
        if (match := re.fullmatch(r"(?:list|List)\[(.+)\]", text)) is not None:
            return {"type": "array", "items": self._type(match[1], field)}
        if (match := re.fullmatch(r"(?:dict|Dict)[(\[]str, (.+)[)\]]", text)) is not None:
            return {"type": "object", "additionalProperties": self._type(match[1], field)}
        if field in _QUANTITIES and text == "str":
            return dict(_QUANTITY)
        if text in _PLAIN:
            return dict(_PLAIN[text])
        if text == "object":
            return dict(_INT_OR_STRING) if field.lower().endswith(("port", "available", "surge")) else {}
        return {"allOf": [{"$ref": _REF + self.add(text)}], "default": {}}

    def add(self, model: str) -> str:
        """Add a model's schema if it is missing. Returns the schema's name."""
        name = schema_name(model)
        if name in self.schemas:
            return name
        schema: Object = {"type": "object", "description": ""}
        self.schemas[name] = schema
        found = getattr(self._models, model)
        empty = found.__new__(found)
        empty.local_vars_configuration = _Strict()
        properties: dict[str, Object] = {}
        required = []
        for attribute, text in found.openapi_types.items():
            field = found.attribute_map[attribute]
            accessor = getattr(found, attribute)
            properties[field] = {"description": _description(accessor.fget), **self._type(text, field)}
            try:
                accessor.fset(empty, None)
            except ValueError:
                required.append(field)
        if properties:
            schema["properties"] = properties
        if required:
            schema["required"] = sorted(required)
        return name

    def kind(self, kind: Kind) -> str:
        """The schema of a kind, with how its lists are merged."""
        name = self.add(self.model_of(kind))
        schema = self.schemas[name]
        schema["description"] = f"{kind.kind} ({kind.api_version})"
        gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        schema["x-kubernetes-group-version-kind"] = [gvk]
        for path, rule in rules(kind.shares or kind.plural).items():
            field = self._at(schema, path.split("."))
            if field is None:
                continue
            if rule.merge_key is not None:
                field["x-kubernetes-patch-strategy"] = "merge,retainKeys" if rule.retain_keys else "merge"
                if rule.merge_key:
                    field["x-kubernetes-patch-merge-key"] = rule.merge_key
            if rule.map_keys:
                field["x-kubernetes-list-type"] = "map"
                field["x-kubernetes-list-map-keys"] = list(rule.map_keys)
            elif rule.is_set:
                field["x-kubernetes-list-type"] = "set"
        return name

    def _at(self, schema: Object, path: list[str]) -> Object | None:
        field: Object | None = None
        for step in path:
            field = schema.get("properties", {}).get(step)
            if field is None:
                return None
            schema = resolve(self.schemas, field.get("items", field))
        return field


def resolve(schemas: dict[str, Object], schema: Object) -> Object:
    """The schema that a reference points to."""
    ref = schema.get("$ref") or next((part["$ref"] for part in schema.get("allOf", ()) if "$ref" in part), None)
    return schemas[ref[len(_REF) :]] if ref else schema


_QUERY = ("dryRun", "fieldManager", "fieldValidation", "force")


def _patches(kind: Kind) -> tuple[str, ...]:
    return tuple(media for media in PATCHES if not kind.custom or media != STRATEGIC_PATCH)


def _paths(kind: Kind, name: str) -> Object:
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    space = "/namespaces/{namespace}" if kind.namespaced else ""
    gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    body = {"schema": {"$ref": _REF + name}}
    query = [{"name": key, "in": "query", "schema": {"type": "string"}} for key in _QUERY]

    def operation(action: str, media: tuple[str, ...]) -> Object:
        return {
            "operationId": f"{action}{kind.kind}",
            "parameters": query,
            "requestBody": {"content": dict.fromkeys(media, body)},
            "responses": {"200": {"description": "OK", "content": {"application/json": body}}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        }

    out: Object = {f"{root}{space}/{kind.plural}": {"post": operation("post", ("application/json",))}}
    if "patch" in kind.verbs:
        out[f"{root}{space}/{kind.plural}/{{name}}"] = {
            "put": operation("put", ("application/json",)),
            "patch": operation("patch", _patches(kind)),
        }
    return out


def _field(number: int, data: bytes) -> bytes:
    """A field of a protobuf message that holds bytes, at most 127 of them."""
    return bytes([number << 3 | 2, len(data)]) + data


def _version_2(accept: str) -> web.Response:
    """An OpenAPI v2 document without definitions, in protobuf if asked for.

    kubectl reads it for a manifest of kind List. Where the document has no schema, it leaves the validation of the
    list's items to the server.
    """
    title, version = "wasmlet.testing", discovery.VERSION
    if _PROTOBUF in accept:  # the @ of that name is not allowed in a media type, so answers have a dot instead
        info = _field(1, title.encode()) + _field(2, version.encode())
        body = _field(1, b"2.0") + _field(2, info) + _field(8, b"")
        return web.Response(body=body, headers={"Content-Type": _PROTOBUF.replace("@", ".")})
    document = {"swagger": "2.0", "info": {"title": title, "version": version}, "paths": {}, "definitions": {}}
    return web.Response(body=orjson.dumps(document), content_type="application/json")


_LOCK = threading.Lock()


@functools.cache
def _build() -> tuple[dict[str, Object], dict[str, bytes]]:
    """All schemas by name, and the documents by the path of their group version."""
    builder = _Builder()
    names = {kind: builder.kind(kind) for kind in KINDS if hasattr(builder._models, builder.model_of(kind))}
    documents = {}
    catalog = Catalog()
    for group, version in catalog.group_versions():
        paths: Object = {}
        needed: dict[str, Object] = {}
        for kind in catalog.of_group(group, version):
            if kind in names:
                paths |= _paths(kind, names[kind])
                _gather(builder.schemas, names[kind], needed)
        documents[_path(group, version)] = _document(paths, needed)
    return builder.schemas, documents


def _path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _document(paths: Object, schemas: Object) -> bytes:
    return orjson.dumps(
        {
            "openapi": "3.0.0",
            "info": {"title": "wasmlet.testing", "version": discovery.VERSION},
            "paths": paths,
            "components": {"schemas": schemas},
        }
    )


_META = "v1.ObjectMeta"


def _custom(versions: Iterable[Version], schemas: dict[str, Object]) -> dict[str, bytes]:
    """The documents of custom resources, by the path of their group version."""
    paths: dict[str, Object] = {}
    needed: dict[str, dict[str, Object]] = {}
    for version in versions:
        kind = version.kind
        at = _path(kind.group, kind.version)
        name = f"{'.'.join(reversed(kind.group.split('.')))}.{kind.version}.{kind.kind}"
        paths.setdefault(at, {}).update(_paths(kind, name))
        _gather(schemas, _META, needed.setdefault(at, {}))
        needed[at][name] = {
            **version.schema,
            "properties": {
                **(version.schema.get("properties") or {}),
                "apiVersion": {"type": "string", "description": "The version of the schema of this object."},
                "kind": {"type": "string", "description": "What this object is."},
                "metadata": {"allOf": [{"$ref": _REF + _META}], "default": {}},
            },
            "x-kubernetes-group-version-kind": [{"group": kind.group, "version": kind.version, "kind": kind.kind}],
        }
    return {at: _document(paths[at], needed[at]) for at in paths}


def _gather(schemas: dict[str, Object], name: str, into: dict[str, Object]) -> None:
    """Add a schema and all that it refers to."""
    if name in into:
        return
    into[name] = schemas[name]
    for ref in re.findall(rb'"\$ref":"([^"]+)"', orjson.dumps(schemas[name])):
        _gather(schemas, ref.decode()[len(_REF) :], into)


def _locked() -> tuple[dict[str, Object], dict[str, bytes]]:
    with _LOCK:  # two first requests must not both import
        return _build()


class OpenApi:
    """Serves the documents."""

    def __init__(self, definitions: Definitions, catalog: Catalog) -> None:
        self._definitions = definitions
        self._catalog = catalog
        self._custom: tuple[int, dict[str, bytes]] = (0, {})

    async def _documents(self) -> dict[str, bytes]:
        """All documents; those of custom resources are built again where definitions have changed."""
        schemas, documents = await asyncio.to_thread(_locked)
        if self._custom[0] != self._catalog.revision:
            self._custom = (self._catalog.revision, _custom(self._definitions.versions(), schemas))
        return documents | self._custom[1]

    async def schemas(self) -> dict[str, Object]:
        """All schemas by name."""
        return (await asyncio.to_thread(_locked))[0]

    async def answer(self, request: web.BaseRequest, rest: list[str]) -> web.Response:
        """The index of /openapi/v3, or the document of a group version.

        Raises:
            ApiError: 404.
        """
        if rest == ["v2"]:
            return _version_2(request.headers.get("Accept", ""))
        if not rest or rest[0] != "v3":
            raise status.no_such_path()
        documents = await self._documents()
        if len(rest) == 1:
            paths = {
                path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={hashlib.sha256(body).hexdigest()[:32].upper()}"}
                for path, body in documents.items()
            }
            return web.Response(body=orjson.dumps({"paths": paths}), content_type="application/json")
        body = documents.get("/".join(rest[1:]))
        if body is None:
            raise status.no_such_path()
        headers = {"Cache-Control": "public, immutable, max-age=31536000"} if "hash" in request.query else {}
        return web.Response(body=body, content_type="application/json", headers=headers)
