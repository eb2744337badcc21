"""Field validation: unknown fields and wrong types in what a client sends, by the schemas of `openapi`.

It is done where a request asks for it with `fieldValidation=Strict` or `Warn`, as kubectl does. Unlike in a cluster,
where the default is Warn, other requests are not validated: the first validation takes half a second.
"""

from __future__ import annotations

from typing import Any

from wasmlet.controlplane.http.openapi import OpenApi, resolve, schema_name
from wasmlet.controlplane.http.paths import Target
from wasmlet.controlplane.objects.patching import JSON_PATCH, STRATEGIC_PATCH
from wasmlet.controlplane.storage.status import Object, bad_request

FINDINGS = 20
"""The most findings that are reported."""


class _Walk:
    """Compares a value with a schema and notes what does not fit."""

    def __init__(self, schemas: dict[str, Object], directives: bool) -> None:
        self._schemas = schemas
        self._directives = directives
        self.unknown: list[str] = []
        self.wrong: list[str] = []

    def look(self, value: Any, schema: Object, at: str) -> None:
        schema = resolve(self._schemas, schema)
        if value is None or not schema:
            return
        if "oneOf" in schema:
            kinds = {choice["type"] for choice in schema["oneOf"]}
            if not any(_is(value, kind) for kind in kinds):
                self.wrong.append(f"{at}: expected {' or '.join(sorted(kinds))}, found {_what(value)}")
            return
        kind = schema.get("type")
        if kind and not _is(value, kind):
            self.wrong.append(f"{at}: expected {kind}, found {_what(value)}")
            return
        if isinstance(value, dict):
            self._object(value, schema, at)
        elif isinstance(value, list) and "items" in schema:
            for place, item in enumerate(value):
                self.look(item, schema["items"], f"{at}[{place}]")

    def _object(self, value: dict[str, Any], schema: Object, at: str) -> None:
        if "additionalProperties" in schema:
            for key, item in value.items():
                self.look(item, schema["additionalProperties"], f"{at}.{key}" if at else key)
            return
        properties = schema.get("properties")
        if properties is None:
            return
        for key, item in value.items():
            if self._directives and key.startswith("$"):
                continue
            below = f"{at}.{key}" if at else key
            if key in properties:
                self.look(item, properties[key], below)
            else:
                self.unknown.append(f'unknown field "{below}"')


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
    return True


def _what(value: Any) -> str:
    match value:
        case dict():
            return "an object"
        case list():
            return "a list"
        case bool():
            return "a boolean"
        case str():
            return f"the string {value[:60]!r}"
        case _:
            return f"the number {value}"


class FieldValidation:
    """Checks bodies against the schemas."""

    def __init__(self, openapi: OpenApi) -> None:
        self._openapi = openapi

    async def check(self, target: Target, media: str, body: Any, *, strict: bool) -> list[str]:
        """Look at a body; returns warnings about unknown fields, in the order in which they appear.

        Raises:
            ApiError: 400, a field has the wrong type, or is unknown and `strict` was asked for.
        """
        if media == JSON_PATCH or not isinstance(body, dict):
            return []
        schemas = await self._openapi.schemas()
        kind = target.kind
        prefix = "Events" if kind.shares else "Core"
        names = (schema_name(f"V1{kind.kind}"), schema_name(f"{prefix}V1{kind.kind}"))
        name = next((name for name in names if name in schemas), None)
        if name is None:
            return []
        walk = _Walk(schemas, directives=media == STRATEGIC_PATCH)
        walk.look(body, schemas[name], "")
        head = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
        if walk.wrong:
            raise bad_request(head + "; ".join(walk.wrong[:FINDINGS]))
        if strict and walk.unknown:
            raise bad_request(head + "strict decoding error: " + ", ".join(walk.unknown[:FINDINGS]))
        return walk.unknown[:FINDINGS]
