"""Patches as functions: the RFCs' own examples, strategic merge by example, and what must hold for any of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlet.controlplane.patches import apply, patch, strategic
from wasmlet.controlplane.storage.status import ApiError

keys = st.sampled_from(["a", "b", "c", "d/e", "f~g", ""])
scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "y"])
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
objects = st.dictionaries(keys, values, max_size=4)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return value


def difference(old: Any, new: Any) -> Any:
    """A merge patch from one object to another, neither of which has nulls."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    out = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            out[key] = value
        elif not patch.same(old[key], value):
            out[key] = difference(old[key], value)
    return out


@pytest.mark.parametrize(
    ("target", "change", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_by_the_rfc(target: Any, change: Any, result: Any) -> None:
    assert patch.merge(target, change) == result


@given(old=objects.map(without_nulls), new=objects.map(without_nulls))
def test_a_merge_patch_leads_from_any_object_to_any_other(old: Any, new: Any) -> None:
    before = copy.deepcopy(old)
    assert patch.same(patch.merge(old, difference(old, new)), new)
    assert patch.same(old, before)
    assert patch.same(patch.merge(old, {}), old)


@pytest.mark.parametrize(
    ("document", "operations", "result"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"foo": "bar", "baz": "qux"}),
        ({"foo": ["a", "c"]}, [{"op": "add", "path": "/foo/1", "value": "b"}], {"foo": ["a", "b", "c"]}),
        ({"foo": ["a"]}, [{"op": "add", "path": "/foo/-", "value": ["b"]}], {"foo": ["a", ["b"]]}),
        ({"a": 1, "b": 2}, [{"op": "remove", "path": "/a"}], {"b": 2}),
        ({"a": [1, 2, 3]}, [{"op": "remove", "path": "/a/1"}], {"a": [1, 3]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": None}], {"a": None}),
        ({"a": {"b": 1}, "c": {}}, [{"op": "move", "from": "/a/b", "path": "/c/d"}], {"a": {}, "c": {"d": 1}}),
        ({"a": [1, 2]}, [{"op": "move", "from": "/a/0", "path": "/a/1"}], {"a": [2, 1]}),
        ({"a": [1]}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": [1], "b": [1]}),
        ({"~1": 10, "/": 9}, [{"op": "test", "path": "/~01", "value": 10}], {"~1": 10, "/": 9}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
    ],
)
def test_json_patch(document: Any, operations: Any, result: Any) -> None:
    before = copy.deepcopy(document)
    assert patch.json_patch(document, operations) == result
    assert document == before


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/none"},
        {"op": "replace", "path": "/none", "value": 1},
        {"op": "add", "path": "/list/9", "value": 1},
        {"op": "add", "path": "/list/01", "value": 1},
        {"op": "add", "path": "/text/x", "value": 1},
        {"op": "add", "path": "list", "value": 1},
        {"op": "add", "path": "/x"},
        {"op": "test", "path": "/one", "value": True},
        {"op": "test", "path": "/one", "value": "1"},
        {"op": "move", "path": "/one"},
        {"op": "move", "from": "/deep", "path": "/deep/er"},
        {"op": "jump", "path": "/one"},
        {"op": "add"},
    ],
)
def test_json_patches_that_fail(operation: Any) -> None:
    with pytest.raises(ApiError) as caught:
        patch.json_patch({"one": 1, "text": "t", "list": [1], "deep": {}}, [operation])
    assert caught.value.code in (400, 422)


@given(document=objects, key=keys, value=values)
def test_what_a_json_patch_adds_it_can_test_and_take_away(document: Any, key: str, value: Any) -> None:
    path = "/" + key.replace("~", "~0").replace("/", "~1")
    added = patch.json_patch(document, [{"op": "add", "path": path, "value": value}])
    assert patch.same(added, {**document, key: value})
    tested = patch.json_patch(added, [{"op": "test", "path": path, "value": value}, {"op": "remove", "path": path}])
    assert patch.same(tested, {name: item for name, item in document.items() if name != key})


def env(**variables: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in variables.items()]


def spec(**fields: Any) -> dict[str, Any]:
    return {"spec": fields}


def one(**fields: Any) -> dict[str, Any]:
    return spec(containers=[{"name": "c", **fields}])


@pytest.mark.parametrize(
    ("target", "change", "result"),
    [
        # by merge key, and new elements at the end
        (one(image="1", env=env(A="1")), one(env=env(A="2", B="3")), one(image="1", env=env(A="2", B="3"))),
        (
            one(image="1"),
            spec(containers=[{"name": "d"}]),
            spec(containers=[{"name": "c", "image": "1"}, {"name": "d"}]),
        ),
        # lists without a merge key are replaced
        (one(args=["a", "b"]), one(args=["c"]), one(args=["c"])),
        (spec(tolerations=[{"key": "a"}]), spec(tolerations=[{"key": "b"}]), spec(tolerations=[{"key": "b"}])),
        # directives
        (one(env=env(A="1", B="2")), one(env=[{"name": "A", "$patch": "delete"}]), one(env=env(B="2"))),
        (one(env=env(A="1")), one(env=[{"$patch": "replace"}, *env(B="2")]), one(env=env(B="2"))),
        (one(resources={"limits": {"a": "1"}}), one(resources={"$patch": "replace", "x": 1}), one(resources={"x": 1})),
        (one(resources={"limits": {"a": "1"}}), one(resources={"$patch": "delete"}), one()),
        (
            one(env=env(A="1", B="2")),
            one(**{"env": env(C="3"), "$setElementOrder/env": [{"name": "C"}, {"name": "B"}, {"name": "A"}]}),
            one(env=env(C="3", B="2", A="1")),
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}},
            {"metadata": {"finalizers": ["b", "c"]}},
        ),
        (
            spec(volumes=[{"name": "v", "emptyDir": {}}]),
            spec(volumes=[{"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]),
            spec(volumes=[{"name": "v", "secret": {"secretName": "s"}}]),
        ),
        # nulls
        (one(image="1", env=env(A="1")), one(env=None), one(image="1")),
        ({}, one(image="1", env=None), one(image="1")),
        (
            {"status": {"conditions": [{"type": "A", "status": "False", "reason": "x"}, {"type": "B"}]}},
            {"status": {"conditions": [{"type": "A", "status": "True", "reason": None}]}},
            {"status": {"conditions": [{"type": "A", "status": "True"}, {"type": "B"}]}},
        ),
    ],
)
def test_strategic_merge(target: Any, change: Any, result: Any) -> None:
    before = copy.deepcopy((target, change))
    assert strategic.merge("pods", target, change) == result
    assert (target, change) == before


def test_ports_of_different_kinds_have_different_keys() -> None:
    service = spec(ports=[{"port": 1, "name": "a"}])
    assert strategic.merge("services", service, spec(ports=[{"port": 1, "name": "b"}])) == spec(
        ports=[{"port": 1, "name": "b"}]
    )
    container = one(ports=[{"containerPort": 1, "name": "a"}])
    merged = strategic.merge("pods", container, one(ports=[{"containerPort": 2}]))
    assert [port["containerPort"] for port in merged["spec"]["containers"][0]["ports"]] == [1, 2]


@pytest.mark.parametrize(
    "change",
    [
        [],
        one(env=[{"value": "no name"}]),
        one(env=["A"]),
        one(env=[{"name": ["A"]}]),
        {"$patch": "explode"},
        {"$unknown": 1},
        {"metadata": {"finalizers": [{}]}},
        {"spec": {"$retainKeys": "x"}},
        {"spec": {"containers": [{"name": "c"}], "$setElementOrder/containers": [{"name": {}}]}},
    ],
)
def test_strategic_patches_that_are_none(change: Any) -> None:
    with pytest.raises(ApiError) as caught:
        strategic.merge("pods", one(image="1"), change)
    assert caught.value.code == 400


names = st.sampled_from(["a", "b", "c", "d", "e"])
keyed = st.dictionaries(names, st.sampled_from(["1", "2", "3"])).flatmap(
    lambda found: st.permutations([{"name": name, "value": value} for name, value in found.items()])
)


@given(old=keyed, new=keyed)
def test_a_strategic_patch_leads_from_any_list_to_any_other(old: Any, new: Any) -> None:
    wanted = {item["name"] for item in new}
    gone = [{"name": item["name"], "$patch": "delete"} for item in old if item["name"] not in wanted]
    order = [{"name": item["name"]} for item in new]
    change = one(**{"env": [*new, *gone], "$setElementOrder/env": order})
    assert strategic.merge("pods", one(env=old), change) == one(env=new)


@given(old=keyed, new=keyed)
def test_a_strategic_patch_may_be_sent_twice(old: Any, new: Any) -> None:
    once = strategic.merge("pods", one(env=old), one(env=new))
    assert strategic.merge("pods", once, one(env=new)) == once
    assert {item["name"] for item in once["spec"]["containers"][0]["env"]} == {item["name"] for item in [*old, *new]}


labels = st.dictionaries(names, st.sampled_from(["1", "2"]))


def owned(config: dict[str, Any], variables: list[dict[str, str]]) -> dict[str, Any]:
    container = {"name": "c", **({"env": variables} if variables else {})}
    return {"metadata": {"name": "p", **({"labels": config} if config else {})}, "spec": {"containers": [container]}}


@given(first=labels, second=labels, env_one=keyed, env_two=keyed)
def test_apply_leaves_exactly_what_its_only_manager_wants(first: Any, second: Any, env_one: Any, env_two: Any) -> None:
    writer = apply.Writer(manager="m", version="v1", now="t")
    live = apply.apply(apply.BuiltIn("pods"), None, owned(first, env_one), writer, force=False)
    changed = apply.apply(apply.BuiltIn("pods"), live, owned(second, env_two), writer, force=False)
    assert changed["metadata"].get("labels", {}) == second
    containers = changed["spec"]["containers"]
    assert {item["name"]: item["value"] for item in containers[0].get("env", [])} == {
        item["name"]: item["value"] for item in env_two
    }
    again = apply.apply(apply.BuiltIn("pods"), changed, owned(second, env_two), writer, force=False)
    assert again == changed


@given(mine=labels, theirs=labels)
def test_apply_never_touches_what_another_manager_owns(mine: Any, theirs: Any) -> None:
    def config(found: dict[str, str]) -> dict[str, Any]:
        return {"metadata": {"name": "x", "labels": found}}

    me, other = (apply.Writer(manager=name, version="v1", now="t") for name in ("me", "other"))
    live = apply.apply(apply.BuiltIn("configmaps"), None, config(theirs), other, force=False)
    clash = {key for key in mine if theirs.get(key, mine[key]) != mine[key]}
    if clash:
        with pytest.raises(ApiError) as caught:
            apply.apply(apply.BuiltIn("configmaps"), live, config(mine), me, force=False)
        fields = {cause["field"] for cause in (caught.value.details or {})["causes"]}
        assert fields == {f".metadata.labels.{key}" for key in clash}
        return
    both = apply.apply(apply.BuiltIn("configmaps"), live, config(mine), me, force=False)
    assert both["metadata"].get("labels", {}) == {**theirs, **mine}
    alone = apply.apply(apply.BuiltIn("configmaps"), both, config({}), me, force=False)
    assert alone["metadata"].get("labels", {}) == theirs
