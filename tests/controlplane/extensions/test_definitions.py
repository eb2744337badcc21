"""Definitions: served at once, with the names that are free, in all their versions, and gone with their objects."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controlplane.client import MERGE, Api, Object
from tests.controlplane.extensions.definitions import (
    DEFINITIONS,
    GROUP,
    SPEC,
    conditions,
    define,
    definition,
    path,
    shelf,
    version,
)
from wasmlet.testing import ControlPlane

SHELVES = f"{DEFINITIONS}/shelves.{GROUP}"


async def test_it_is_served_at_once(api: Api) -> None:
    made = await define(api, definition(shortNames=["sh"], categories=["store"]))
    assert conditions(made) == {
        "NamesAccepted": ("True", "NoConflicts"),
        "Established": ("True", "InitialNamesAccepted"),
    }
    assert made["status"]["acceptedNames"] == {
        "kind": "Shelf",
        "listKind": "ShelfList",
        "plural": "shelves",
        "singular": "shelf",
        "shortNames": ["sh"],
        "categories": ["store"],
    }
    assert made["status"]["storedVersions"] == ["v1"]
    await api.ok("POST", path(), shelf(size=3))
    listed = await api.ok("GET", path())
    assert (listed["kind"], listed["items"][0]["spec"]["size"]) == ("ShelfList", 3)
    found = await api.ok("GET", f"/apis/{GROUP}/v1")
    assert [(item["name"], item["kind"]) for item in found["resources"]] == [
        ("shelves", "Shelf"),
        ("shelves/status", "Shelf"),
        ("shelves/scale", "Scale"),
    ]
    assert GROUP in [group["name"] for group in (await api.ok("GET", "/apis"))["groups"]]


async def test_names_that_others_have_wait_until_they_are_free(api: Api) -> None:
    await define(api, definition(shortNames=["sh"]))
    other = definition("Shell", plural="shells", shortNames=["sh"])
    made = await define(api, other)
    assert conditions(made) == {
        "NamesAccepted": ("False", "ShortNamesConflict"),
        "Established": ("False", "NotAccepted"),
    }
    assert made["status"]["conditions"][0]["message"] == '"sh" is already in use'
    assert (await api("GET", path(plural="shells")))[0] == 404
    async with api.watch(DEFINITIONS, resourceVersion=made["metadata"]["resourceVersion"]) as changes:
        await api.ok("DELETE", SHELVES)
        while True:
            event = await changes.next()
            ours = event["type"] == "MODIFIED" and event["object"]["metadata"]["name"] == f"shells.{GROUP}"
            # That of a cluster says first that it is about to serve it.
            if ours and conditions(event["object"])["Established"] != ("False", "Installing"):
                break
    assert conditions(event["object"]) == {
        "NamesAccepted": ("True", "NoConflicts"),
        "Established": ("True", "InitialNamesAccepted"),
    }
    await api.ok("POST", path(plural="shells"), {**shelf(), "kind": "Shell"})


async def test_a_definition_goes_after_its_objects(api: Api) -> None:
    made = await define(api, definition())
    held = shelf("held", metadata={"finalizers": ["example.com/hold"]})
    await api.ok("POST", path(), held)
    await api.ok("POST", path(), shelf("free"))
    async with (
        api.watch(DEFINITIONS, resourceVersion=made["metadata"]["resourceVersion"]) as changes,
        api.watch(path()) as objects,
    ):
        assert await objects.take(2) == [("ADDED", "free"), ("ADDED", "held")]
        left = await api.ok("DELETE", SHELVES)
        assert left["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
        assert conditions(left)["Terminating"] == ("True", "InstanceDeletionPending")
        assert sorted(await objects.take(2)) == [("DELETED", "free"), ("MODIFIED", "held")]
        code, refused = await api("POST", path(), shelf("late"))
        assert (code, refused["reason"], refused["details"]["name"]) == (403, "Forbidden", "late")
        why = "create not allowed while custom resource definition is terminating"
        assert refused["message"] == f'shelves.{GROUP} "late" is forbidden: {why}'
        await api.ok("PATCH", path("held"), {"metadata": {"finalizers": None}}, media=MERGE)
        assert await objects.take(1) == [("DELETED", "held")]
        assert await objects.ended()
        while (await changes.next())["type"] != "DELETED":
            pass
    assert (await api("GET", path()))[0] == 404
    assert GROUP not in [group["name"] for group in (await api.ok("GET", "/apis"))["groups"]]
    await define(api, definition())
    assert (await api.ok("GET", path()))["items"] == []


async def test_objects_show_in_each_version(api: Api) -> None:
    newer = {**SPEC, "properties": {**SPEC["properties"], "depth": {"type": "integer", "default": 30}}}
    await define(api, definition("Shelf", version("v1beta1", storage=False), version("v1", spec=newer)))
    group = await api.ok("GET", f"/apis/{GROUP}")
    assert [item["version"] for item in group["versions"]] == ["v1", "v1beta1"]
    made = await api.ok("POST", path(version="v1beta1"), shelf(version="v1beta1", size=4))
    assert made["apiVersion"] == f"{GROUP}/v1beta1"
    assert "depth" not in made["spec"]
    stored = await api.ok("GET", path("s"))
    assert (stored["apiVersion"], stored["spec"]["depth"]) == (f"{GROUP}/v1", 30)
    old = await api.ok("PATCH", path("s", version="v1beta1"), {"spec": {"size": 5}}, media=MERGE)
    assert (old["apiVersion"], old["spec"]["size"], "depth" in old["spec"]) == (f"{GROUP}/v1beta1", 5, False)
    listed = await api.ok("GET", path(version="v1beta1"))
    assert listed["apiVersion"] == listed["items"][0]["apiVersion"] == f"{GROUP}/v1beta1"


async def test_a_change_of_the_schema_counts_for_what_is_there(api: Api) -> None:
    await define(api, definition())
    await api.ok("POST", path(), shelf(label="abc"))
    found = await api.ok("GET", SHELVES)
    properties = {key: item for key, item in SPEC["properties"].items() if key != "label"}
    found["spec"]["versions"] = [
        version(spec={**SPEC, "properties": {**properties, "floor": {"type": "integer", "default": 0}}})
    ]
    async with api.watch(path()) as objects:
        await objects.take(1)
        await api.ok("PUT", SHELVES, found)
        assert await objects.ended()
    changed = await api.ok("GET", path("s"))
    assert (changed["spec"]["floor"], "label" in changed["spec"]) == (0, False)


async def test_it_survives_a_restore(plane: ControlPlane | None, api: Api) -> None:
    if plane is None:
        pytest.skip("needs the embedded control plane, which can go back to what it was")
    faults = plane.faults
    without = faults.snapshot()
    await define(api, definition())
    await api.ok("POST", path(), shelf(size=7))
    state = faults.snapshot()
    faults.restore(without)
    assert (await api("GET", path()))[0] == 404
    faults.restore(state)
    assert (await api.ok("GET", path("s")))["spec"]["size"] == 7


def _with(body: Object, *keys: Any, value: Any) -> Object:
    """A copy of an object in which one thing is another."""
    key, *rest = keys
    copied: Any = list(body) if isinstance(body, list) else dict(body)
    copied[key] = _with(copied[key], *rest, value=value) if rest else value
    return copied


_SPEC = ("spec", "versions", 0, "schema", "openAPIV3Schema", "properties", "spec")
_AT = "spec.validation.openAPIV3Schema.properties[spec]"
_BAD_PATTERN = 'pattern: Invalid value: "(": must be a valid regular expression, but isn\'t'
REFUSED: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "name": (("metadata", "name"), "x.y.z", 'Invalid value: "x.y.z": must be spec.names.plural+"."+spec.group'),
    "scope": (("spec", "scope"), "Planet", 'Unsupported value: "Planet": supported values: "Cluster", "Namespaced"'),
    "storage": (("spec", "versions", 0, "storage"), False, "must have exactly one version marked as storage version"),
    "no type": (
        (*_SPEC, "properties", "size"),
        {"minimum": 1},
        f"{_AT}.properties[size].type: Required value: must not be empty for specified object fields",
    ),
    "typed junctor": (
        (*_SPEC, "anyOf"),
        [{"type": "object"}],
        f"{_AT}.anyOf[0].type: Forbidden: must be empty to be structural",
    ),
    "pattern": ((*_SPEC, "properties", "label", "pattern"), "(", f"{_AT}.properties[label].{_BAD_PATTERN}"),
    "default": ((*_SPEC, "properties", "size", "default"), 99, "should be less than or equal to 10"),
    "no keys": (
        (*_SPEC, "properties", "parts", "x-kubernetes-list-map-keys"),
        [],
        "must not be empty if x-kubernetes-list-type is map",
    ),
    "scale": (
        ("spec", "versions", 0, "subresources", "scale", "specReplicasPath"),
        ".status.n",
        "should be a json path under .spec",
    ),
    "column": (
        ("spec", "versions", 0, "additionalPrinterColumns", 0, "type"),
        "colour",
        "must be one of boolean,date,integer,number,string",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
async def test_what_is_wrong_is_refused_by_name(api: Api, case: str) -> None:
    keys, value, message = REFUSED[case]
    code, answer = await api("POST", DEFINITIONS, _with(definition(), *keys, value=value))
    assert (code, answer["reason"]) == (422, "Invalid")
    assert message in answer["message"]


async def test_what_is_served_keeps_its_kind_and_scope(api: Api) -> None:
    found = await define(api, definition())
    found["spec"]["scope"] = "Cluster"
    code, answer = await api("PUT", SHELVES, found)
    assert code == 422
    assert answer["message"].endswith('spec.scope: Invalid value: "Cluster": field is immutable')
