"""Definitions of custom resources for tests."""

from __future__ import annotations

from typing import Any

from tests.controlplane.client import Api, Object

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "shop.example.com"

SPEC: Object = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 10, "default": 2},
        "color": {"type": "string", "enum": ["red", "green"]},
        "label": {"type": "string", "minLength": 2, "maxLength": 5, "pattern": "^[a-z]+$"},
        "ratio": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "multipleOf": 0.5},
        "since": {"type": "string", "format": "date-time"},
        "port": {"x-kubernetes-int-or-string": True},
        "note": {"type": "string", "nullable": True},
        "tags": {
            "type": "array",
            "maxItems": 3,
            "items": {"type": "string"},
            "x-kubernetes-list-type": "set",
        },
        "parts": {
            "type": "array",
            "minItems": 1,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "count": {"type": "integer", "format": "int32", "default": 1},
                    "of": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
        "limits": {"type": "object", "maxProperties": 2, "additionalProperties": {"x-kubernetes-int-or-string": True}},
        "choice": {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        "whole": {
            "type": "object",
            "x-kubernetes-map-type": "atomic",
            "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "policy": {"type": "object", "default": {}, "properties": {"wait": {"type": "string", "default": "5s"}}},
    },
}
STATUS: Object = {
    "type": "object",
    "properties": {
        "size": {"type": "integer"},
        "selector": {"type": "string"},
        "conditions": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type", "status"],
                "properties": {"type": {"type": "string"}, "status": {"type": "string"}},
            },
        },
    },
}
COLUMNS = [
    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
    {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
    {"name": "Parts", "type": "string", "jsonPath": ".spec.parts[*].name", "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]


def version(name: str = "v1", *, storage: bool = True, served: bool = True, spec: Object = SPEC, **more: Any) -> Object:
    """A version of a definition."""
    schema = {"type": "object", "required": ["spec"], "properties": {"spec": spec, "status": STATUS}}
    scale = {
        "specReplicasPath": ".spec.size",
        "statusReplicasPath": ".status.size",
        "labelSelectorPath": ".status.selector",
    }
    return {
        "name": name,
        "served": served,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}, "scale": scale},
        "additionalPrinterColumns": COLUMNS,
        **more,
    }


def definition(
    kind: str = "Shelf", *versions: Object, plural: str = "shelves", scope: str = "Namespaced", **names: Any
) -> Object:
    """A definition of Shelf, or of another kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {"kind": kind, "plural": plural, **names},
            "versions": list(versions or [version()]),
        },
    }


def shelf(name: str = "s", *, version: str = "v1", metadata: Object | None = None, **spec: Any) -> Object:
    """A Shelf."""
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": "Shelf",
        "metadata": {"name": name, **(metadata or {})},
        "spec": spec,
    }


def path(*name: str, version: str = "v1", namespace: str = "default", plural: str = "shelves") -> str:
    """Where Shelves are, or one of them, or its subresource."""
    return "/".join((f"/apis/{GROUP}/{version}/namespaces/{namespace}/{plural}", *name))


def conditions(obj: Object) -> dict[str, tuple[str, str]]:
    """The conditions of an object: status and reason by type."""
    found = obj["status"]["conditions"]
    return {item["type"]: (item["status"], item.get("reason", "")) for item in found}


async def define(api: Api, body: Object) -> Object:
    """Make a definition, and wait until it is Established or refused its names; the embedded plane has it at once."""
    made: Object = await api.ok("POST", DEFINITIONS, body)
    if _settled(made):
        return made
    name, version_ = made["metadata"]["name"], made["metadata"]["resourceVersion"]
    async with api.watch(DEFINITIONS, resourceVersion=version_, fieldSelector=f"metadata.name={name}") as changes:
        while not _settled(made):
            made = (await changes.next(30))["object"]
    return made


def _settled(definition: Object) -> bool:
    found = {item["type"]: item["status"] for item in definition["status"].get("conditions") or ()}
    return found.get("NamesAccepted") == "False" or found.get("Established") == "True"


async def remove_all(api: Api) -> None:
    """Delete the definitions of these tests, and wait until they are gone."""
    while True:
        listed = await api.ok("GET", DEFINITIONS)
        left = [item["metadata"] for item in listed["items"] if item["spec"]["group"] == GROUP]
        if not left:
            return
        async with api.watch(DEFINITIONS, resourceVersion=listed["metadata"]["resourceVersion"]) as changes:
            await api.ok("DELETE", f"{DEFINITIONS}/{left[0]['name']}")
            while True:
                event = await changes.next(30)
                if event["type"] == "DELETED" and event["object"]["metadata"]["uid"] == left[0]["uid"]:
                    break
