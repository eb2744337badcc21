"""The parts, without an API server: pruning, defaults, values, paths, and the bounds of rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.controlplane.extensions.definitions import SPEC, definition, shelf, version
from wasmlet.controlplane.extensions import definition_rules, jsonpath, listtypes, rules, values
from wasmlet.controlplane.extensions.definitions import priority
from wasmlet.controlplane.extensions.version import Version

_SCALARS = st.none() | st.booleans() | st.integers(-5, 20) | st.floats(-2, 20) | st.text("abc-", max_size=6)
_NAMES = st.sampled_from([*SPEC["properties"], "name", "count", "a", "x"])
_VALUES = st.recursive(
    _SCALARS, lambda below: st.lists(below, max_size=4) | st.dictionaries(_NAMES, below), max_leaves=12
)


def _shelf_version() -> Version:
    body = definition()
    definition_rules.fill(body)
    return Version(body["spec"], version())


SHELF = _shelf_version()


@given(st.dictionaries(_NAMES, _VALUES, max_size=6))
def test_what_was_read_once_is_read_as_it_is(spec: dict[str, Any]) -> None:
    once, _ = SHELF.read(shelf(**spec))
    again, unknown = SHELF.read(once)
    assert (again, unknown) == (once, [])


@given(st.dictionaries(_NAMES, _VALUES, max_size=6), st.dictionaries(_NAMES, _VALUES, max_size=6))
def test_nothing_is_said_of_what_did_not_change(before: dict[str, Any], after: dict[str, Any]) -> None:
    before.pop("size", None)  # the number of a scale is looked at each time
    after.pop("size", None)
    old, new = SHELF.read(shelf(**before))[0], SHELF.read(shelf(**after))[0]
    assert SHELF.check(old, old) == []
    fresh = {cause.field for cause in SHELF.check(new, None)}
    assert {cause.field for cause in SHELF.check(new, old)} <= fresh


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (0.75, "0.75"), (1e6, "1e+06"), (123456.0, "123456"), (1234567.5, "1.2345675e+06"), (1e-05, "1e-05")],
)
def test_numbers_read_as_go_writes_them(value: float, text: str) -> None:
    assert values.go_number(value) == text


def test_elements_of_list_maps_differ_by_their_keys() -> None:
    schema = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"]}
    found = [{"a": 1}, {"a": 1, "b": 1}, {"b": 1, "a": 1}, {"a": 1, "c": 2}]
    assert [cause.field for cause in listtypes.check(found, schema, "xs")] == ["xs[2]", "xs[3]"]


def test_paths() -> None:
    obj = {"a": [{"t": "x", "v": 1}, {"t": "y", "v": 2}], "b.c": {"d/e": 3}}
    assert jsonpath.find(obj, ".a[*].v") == [1, 2]
    assert jsonpath.find(obj, '.a[?(@.t=="y")].v') == [2]
    assert jsonpath.find(obj, ".a[-1].t") == ["y"]
    assert jsonpath.find(obj, "['b.c']['d/e']") == [3]
    assert jsonpath.find(obj, ".a.v") == []
    with pytest.raises(ValueError, match="is no JSONPath"):
        jsonpath.parse(".a[?(@.t=~'x')]")


def test_versions_are_ordered_as_kubernetes_has_them() -> None:
    names = ["v1alpha1", "v1", "foo", "v2beta1", "v10", "v1beta2", "v2"]
    assert sorted(names, key=priority) == ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "foo"]


def test_rules_have_only_so_many_steps() -> None:
    numbers = {"type": "array", "items": {"type": "integer"}}
    pairs = "self.xs.all(x, self.xs.all(y, x <= y || x > y))"
    found = rules.Rules.of({"type": "object", rules.KEY: [{"rule": pairs}], "properties": {"xs": numbers}})
    assert found is not None
    assert found.check({"xs": [1, 2, 3]}, None) == []
    (cause,) = found.check({"xs": list(range(1000))}, None)
    assert "running out of cost budget" in cause.message


@pytest.mark.parametrize("rule", ["(" * 200 + "true" + ")" * 200, "true && " * 2000 + "true"], ids=["deep", "long"])
def test_a_rule_is_neither_long_nor_deep(rule: str) -> None:
    spec = {**SPEC, rules.KEY: [{"rule": rule}]}
    (cause,) = definition_rules.check(definition("Shelf", version(spec=spec)) | {"status": {}}, None)[-1:]
    assert "compilation failed: " in cause.message


def test_without_the_package_a_definition_with_rules_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "available", lambda: False)
    body = definition("Shelf", version(spec={**SPEC, rules.KEY: [{"rule": "true"}]}))
    definition_rules.fill(body)
    (cause,) = definition_rules.check(body, None)
    assert cause.message == "Forbidden: rules need the package cel-python: pip install 'wasmlet[cel]'"
