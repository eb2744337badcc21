"""Rules of schemas: definitions whose rules cannot be, and objects that break them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controlplane.client import MERGE, Api, Object
from tests.controlplane.extensions.definitions import DEFINITIONS, SPEC, define, definition, path, shelf, version


def _ruled(rules: list[Object], **fields: list[Object]) -> Object:
    """A definition with rules of the spec, and of fields of it."""
    properties = {**SPEC["properties"]}
    for name, more in fields.items():
        properties[name] = {**properties[name], "x-kubernetes-validations": more}
    return definition("Shelf", version(spec={**SPEC, "properties": properties, "x-kubernetes-validations": rules}))


RULES = [
    {"rule": "!has(self.color) || self.color != 'red' || self.size > 3", "message": "red ones are large"},
    {"rule": "self.size >= oldSelf.size", "message": "a shelf does not shrink", "fieldPath": ".size"},
    {
        "rule": "!has(self.label) || self.label != 'bad'",
        "reason": "FieldValueForbidden",
        "messageExpression": "'not ' + self.label",
    },
    {"rule": "!has(self.parts) || self.parts.all(p, p.count <= 5)"},
    {"rule": "!has(self.since) || self.since > timestamp('2020-01-01T00:00:00Z')", "message": "too old"},
    {"rule": "!has(self.limits) || self.limits.all(k, k.startsWith('x'))", "message": "limits begin with x"},
]
TAGS = [{"rule": "self.exists(t, t == 'main')", "message": "one is main"}]
BROKEN: dict[str, tuple[Object, Object]] = {
    "message": ({"color": "red"}, {"spec": "Invalid value: red ones are large"}),
    "all": ({"parts": [{"name": "a", "count": 6}]}, {"spec": f"Invalid value: failed rule: {RULES[3]['rule']}"}),
    "reason": ({"label": "bad"}, {"spec": "Forbidden: not bad"}),
    "time": ({"since": "2019-01-01T00:00:00Z"}, {"spec": "Invalid value: too old"}),
    "keys": ({"limits": {"y": 1}}, {"spec": "Invalid value: limits begin with x"}),
    "field": ({"tags": ["a"]}, {"spec.tags": "Invalid value: one is main"}),
    "unchecked": (
        {"size": 99, "parts": [{"count": 7}]},
        {
            "spec.size": "Invalid value: 99: spec.size in body should be less than or equal to 10",
            "spec.parts[0].name": "Required value",
            "<nil>": "Invalid value: null: some validation rules were not checked because the object was invalid; "
            "correct the existing errors to complete validation",
        },
    ),
}


@pytest.mark.parametrize("case", sorted(BROKEN))
async def test_what_breaks_a_rule_is_refused(api: Api, case: str) -> None:
    await define(api, _ruled(RULES, tags=TAGS))
    spec, wanted = BROKEN[case]
    code, answer = await api("POST", path(), shelf(**spec))
    assert code == 422, answer
    assert {cause["field"]: cause["message"] for cause in answer["details"]["causes"]} == wanted


async def test_rules_of_changes_look_at_what_was(api: Api) -> None:
    await define(api, _ruled(RULES, tags=TAGS))
    await api.ok("POST", path(), shelf(size=4, color="red", tags=["main"]))
    await api.ok("PATCH", path("s"), {"spec": {"size": 5}}, media=MERGE)
    code, answer = await api("PATCH", path("s"), {"spec": {"size": 4}}, media=MERGE)
    assert (code, answer["details"]["causes"]) == (
        422,
        [
            {
                "reason": "FieldValueInvalid",
                "message": "Invalid value: a shelf does not shrink",
                "field": "spec.size",
            }
        ],
    )
    code, answer = await api("PATCH", path("s", "scale"), {"spec": {"replicas": 4}}, media=MERGE)
    assert (code, answer["details"]["causes"][0]["field"]) == (422, "spec.size")


async def test_what_breaks_a_rule_already_may_stay(api: Api) -> None:
    """A rule of a field that did not change is not looked at, as with the rest of a schema."""
    await define(api, definition())
    await api.ok("POST", path(), shelf(tags=["a"]))
    at = f"{DEFINITIONS}/shelves.shop.example.com"
    found = await api.ok("GET", at)
    found["spec"] = _ruled([], tags=TAGS)["spec"]
    await api.ok("PUT", at, found)
    changed = {"spec": {"size": 3}}
    code, answer = await api("PATCH", path("s"), {"spec": {"tags": ["b"]}}, media=MERGE)
    while code == 200:  # an API server takes a moment until it knows the new rule
        code, answer = await api("PATCH", path("s"), {"spec": {"tags": ["b", str(code)]}}, media=MERGE)
    assert answer["details"]["causes"][0]["field"] == "spec.tags"
    assert (await api.ok("PATCH", path("s"), changed, media=MERGE))["spec"]["size"] == 3


REFUSED = {
    "syntax": ("self.size ==", "compilation failed: "),
    "field": ("self.sizes > 1", "undefined field 'sizes'"),
    "nested": ("self.parts.all(p, p.n > 1)", "undefined field 'n'"),
    "name": ("siz > 1", "undeclared reference to 'siz'"),
    "function": ("self.color.shout()", "undeclared reference to 'shout'"),
    "type": ("self.size", "must evaluate to a bool"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
async def test_a_rule_that_does_not_compile_is_refused_by_name(api: Api, case: str) -> None:
    rule, wanted = REFUSED[case]
    code, answer = await api("POST", DEFINITIONS, _ruled([{"rule": "true"}, {"rule": rule}]))
    assert code == 422, answer
    (cause,) = answer["details"]["causes"]
    at = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[1].rule"
    assert cause["field"] == at
    assert wanted in cause["message"]


async def test_old_values_are_asked_for_only_where_they_are_known(api: Api) -> None:
    properties: Any = {**SPEC["properties"]}
    items = {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}
    properties["tags"] = {"type": "array", "maxItems": 3, "items": items}
    body = definition("Shelf", version(spec={**SPEC, "properties": properties}))
    code, answer = await api("POST", DEFINITIONS, body)
    assert code == 422
    assert "oldSelf cannot be used on the uncorrelatable portion of the schema within" in answer["message"]
