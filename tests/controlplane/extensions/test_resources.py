"""Custom resources: pruned, given defaults and validated by their schema, with status and scale."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controlplane.client import JSON_PATCH, MERGE, STRATEGIC, Api, Object
from tests.controlplane.extensions.definitions import GROUP, define, definition, path, shelf, version

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.fixture(autouse=True)
async def shelves(api: Api) -> Object:
    return await define(api, definition())


async def test_fields_are_pruned_and_defaults_filled_in(api: Api) -> None:
    body = shelf(parts=[{"name": "a", "x": 1}], free={"any": {"thing": 1}}, unknown=1, note=None, label=None)
    made = await api.ok("POST", path(), body)
    assert made["spec"] == {
        "size": 2,
        "parts": [{"name": "a", "count": 1}],
        "free": {"any": {"thing": 1}},
        "note": None,
        "policy": {"wait": "5s"},
    }


@pytest.mark.parametrize(
    ("mode", "code"), [("Strict", 400), ("Warn", 201), ("", 201), ("Ignore", 201)], ids=lambda value: str(value)
)
async def test_unknown_fields_are_told_of(api: Api, mode: str, code: int) -> None:
    query = f"?fieldValidation={mode}" if mode else ""
    body = shelf(sizes=1, parts=[{"name": "a", "z": 1}])
    async with api.session.post(api.server + path() + query, json=body, headers=api.headers) as answer:
        found = await answer.json()
        warnings = answer.headers.getall("Warning", [])
    assert answer.status == code
    unknown = ['unknown field "spec.parts[0].z"', 'unknown field "spec.sizes"']
    if mode == "Strict":
        head = 'Shelf in version "v1" cannot be handled as a Shelf: strict decoding error: '
        assert found["message"] == head + ", ".join(unknown)
    elif mode == "Ignore":
        assert warnings == []
    else:
        assert [text.replace('\\"', '"')[7:-1] for text in warnings] == unknown


CASES: dict[str, tuple[Object, str, str]] = {
    "type": ({"tags": "x"}, "spec.tags", 'Invalid value: "string": @ in body must be of type array: "string"'),
    "maximum": ({"size": 11}, "spec.size", "Invalid value: 11: @ in body should be less than or equal to 10"),
    "minimum": ({"size": 0}, "spec.size", "Invalid value: 0: @ in body should be greater than or equal to 1"),
    "exclusive": ({"ratio": 0}, "spec.ratio", "Invalid value: 0: @ in body should be greater than 0"),
    "multiple": ({"ratio": 0.75}, "spec.ratio", "Invalid value: 0.75: @ in body should be a multiple of 0.5"),
    "enum": ({"color": "blue"}, "spec.color", 'Unsupported value: "blue": supported values: "red", "green"'),
    "short": ({"label": "a"}, "spec.label", 'Invalid value: "a": @ in body should be at least 2 chars long'),
    "long": ({"label": "abcdef"}, "spec.label", "Too long: may not be more than 5 bytes"),
    "pattern": ({"label": "ab1"}, "spec.label", "Invalid value: \"ab1\": @ in body should match '^[a-z]+$'"),
    "format": ({"since": "noon"}, "spec.since", 'Invalid value: "noon": @ in body must be of type date-time: "noon"'),
    "int or string": (
        {"port": True},
        "spec.port",
        'Invalid value: "boolean": @ in body must be of type integer,string: "boolean"',
    ),
    "items": (
        {"tags": ["a", 1]},
        "spec.tags[1]",
        'Invalid value: "integer": @ in body must be of type string: "integer"',
    ),
    "many": ({"tags": ["a", "b", "c", "d"]}, "spec.tags", "Too many: 4: must have at most 3 items"),
    "few": ({"parts": []}, "spec.parts", "Invalid value: 0: @ in body should have at least 1 items"),
    "set": ({"tags": ["a", "b", "a"]}, "spec.tags[2]", 'Duplicate value: "a"'),
    "list-map": ({"parts": [{"name": "a"}, {"name": "a"}]}, "spec.parts[1]", 'Duplicate value: {"name":"a"}'),
    "required": ({"parts": [{"count": 1}]}, "spec.parts[0].name", "Required value"),
    "properties": ({"limits": {"a": 1, "b": 2, "c": 3}}, "spec.limits", "Too many: 3: must have at most 2 items"),
    "one of": (
        {"choice": {"a": "1", "b": "2"}},
        "<nil>",
        'Invalid value: "": "spec.choice" must validate one and only one schema (oneOf). Found 2 valid alternatives',
    ),
}
"""A spec, the field that is refused, and why; @ stands for the field."""


@pytest.mark.parametrize("case", sorted(CASES))
async def test_what_does_not_fit_is_refused(api: Api, case: str) -> None:
    spec, field, message = CASES[case]
    code, answer = await api("POST", path(), shelf(**spec))
    assert code == 422, answer
    assert {cause["field"]: cause["message"] for cause in answer["details"]["causes"]} == {
        field: message.replace("@", field)
    }
    assert answer["message"].startswith(f'Shelf.{GROUP} "s" is invalid: ')


async def test_what_a_scale_shows_is_a_number(api: Api) -> None:
    code, answer = await api("POST", path(), shelf(size="3"))
    causes = {cause["field"]: cause["message"] for cause in answer["details"]["causes"]}
    assert (code, causes) == (
        422,
        {
            "spec.size": 'Invalid value: "string": spec.size in body must be of type integer: "string"',
            ".spec.size": "Invalid value: 0: .spec.size accessor error: 3 is of the type string, expected int64",
        },
    )


async def test_what_was_there_before_may_stay(api: Api) -> None:
    """An object from before the schema became stricter can be changed where it is right."""
    await api.ok("POST", path(), shelf(label="abc", tags=["a"]))
    at = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/shelves.{GROUP}"
    edit = [
        {
            "op": "replace",
            "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/label/pattern",
            "value": "^x",
        }
    ]
    await api.ok("PATCH", at, edit, media=JSON_PATCH)
    assert (await api.ok("PATCH", path("s"), {"spec": {"size": 3}}, media=MERGE))["spec"]["label"] == "abc"
    assert (await api("PATCH", path("s"), {"spec": {"label": "abd"}}, media=MERGE))[0] == 422


async def test_generations_count_what_is_not_status(api: Api) -> None:
    made = await api.ok("POST", path(), {**shelf(), "status": {"size": 9}})
    assert (made["metadata"]["generation"], "status" in made) == (1, False)
    changed = await api.ok("PATCH", path("s"), {"spec": {"size": 3}, "status": {"size": 9}}, media=MERGE)
    assert (changed["metadata"]["generation"], "status" in changed) == (2, False)
    body = {"metadata": {"labels": {"a": "b"}}, "spec": {"size": 4}, "status": {"size": 9}}
    written = await api.ok("PATCH", path("s", "status"), body, media=MERGE)
    assert (written["metadata"]["generation"], written["status"], written["spec"]["size"]) == (2, {"size": 9}, 3)
    assert "labels" not in written["metadata"]
    code, answer = await api("PATCH", path("s", "status"), {"status": {"size": "x"}}, media=MERGE)
    assert (code, answer["details"]["causes"][0]["field"]) == (422, "status.size")
    labelled = await api.ok("PATCH", path("s"), {"metadata": {"labels": {"a": "b"}}}, media=MERGE)
    assert labelled["metadata"]["generation"] == 2


async def test_an_update_names_the_version_it_replaces(api: Api) -> None:
    made = await api.ok("POST", path(), shelf())
    code, answer = await api("PUT", path("s"), shelf(size=3))
    assert (code, answer["details"]["causes"][0]["field"]) == (422, "metadata.resourceVersion")
    made["spec"]["size"] = 3
    changed = await api.ok("PUT", path("s"), made)
    assert (await api("PUT", path("s"), {**made, "spec": {"size": 4}}))[0] == 409
    again = await api.ok("PUT", path("s"), changed)
    assert again["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]


async def test_a_strategic_merge_patch_is_not_for_them(api: Api) -> None:
    await api.ok("POST", path(), shelf())
    code, answer = await api("PATCH", path("s"), {"spec": {"size": 3}}, media=STRATEGIC)
    assert (code, answer["reason"]) == (415, "UnsupportedMediaType")


async def test_the_scale_is_where_the_definition_says(api: Api) -> None:
    await api.ok("POST", path(), shelf(size=3))
    status = {"size": 1, "selector": "app=shelf"}
    await api.ok("PATCH", path("s", "status"), {"status": status}, media=MERGE)
    scale = await api.ok("GET", path("s", "scale"))
    assert (scale["kind"], scale["spec"], scale["status"]) == (
        "Scale",
        {"replicas": 3},
        {"replicas": 1, "selector": "app=shelf"},
    )
    changed = await api.ok("PATCH", path("s", "scale"), {"spec": {"replicas": 5}}, media=MERGE)
    assert changed["spec"]["replicas"] == 5
    code, answer = await api("PUT", path("s", "scale"), {**changed, "spec": {"replicas": 50}})
    assert (code, answer["details"]["causes"][0]["field"]) == (422, "spec.size")
    assert (await api.ok("GET", path("s")))["spec"]["size"] == 5


async def test_the_table_has_the_columns_of_the_definition(api: Api) -> None:
    await api.ok("POST", path(), shelf(size=3, parts=[{"name": "a"}, {"name": "b"}]))
    ready = {"conditions": [{"type": "Sold", "status": "x"}, {"type": "Ready", "status": "True"}]}
    await api.ok("PATCH", path("s", "status"), {"status": ready}, media=MERGE)
    table = await api.ok("GET", path(), Accept=TABLE)
    heads = [(column["name"], column["type"], column["priority"]) for column in table["columnDefinitions"]]
    assert heads == [
        ("Name", "string", 0),
        ("Size", "integer", 0),
        ("Color", "string", 0),
        ("Ready", "string", 0),
        ("Parts", "string", 1),
        ("Age", "date", 0),
    ]
    assert table["rows"][0]["cells"][:5] == ["s", 3, None, "True", "a"]


async def test_selectable_fields(api: Api) -> None:
    fields = [{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.size"}]
    await define(api, definition("Box", version(selectableFields=fields), plural="boxes"))

    def box(name: str, **spec: Any) -> Object:
        return {**shelf(name, **spec), "kind": "Box"}

    for name, color in (("a", "red"), ("b", "green"), ("c", "red")):
        await api.ok("POST", path(plural="boxes"), box(name, color=color))
    found = await api.ok("GET", path(plural="boxes") + "?fieldSelector=spec.color%3Dred,metadata.name!%3Dc")
    assert [item["metadata"]["name"] for item in found["items"]] == ["a"]
    code, answer = await api("GET", path(plural="boxes") + "?fieldSelector=spec.label%3Dred")
    assert (code, answer["message"]) == (400, "field label not supported: spec.label")
