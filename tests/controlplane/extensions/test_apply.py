"""Server-side apply of custom resources: lists and objects are merged as their schema says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controlplane.client import APPLY, Api, Object
from tests.controlplane.extensions.definitions import define, definition, path, shelf


@pytest.fixture(autouse=True)
async def shelves(api: Api) -> Object:
    return await define(api, definition())


async def _apply(api: Api, manager: str, *, force: bool = False, **spec: Any) -> tuple[int, Any]:
    query = f"?fieldManager={manager}" + ("&force=true" if force else "")
    return await api("PATCH", path("s") + query, shelf(**spec), media=APPLY)


async def test_lists_merge_by_their_keys(api: Api) -> None:
    code, made = await _apply(api, "a", size=3, tags=["x"], parts=[{"name": "one", "count": 2}], whole={"x": 1})
    assert code == 201, made
    code, both = await _apply(api, "b", tags=["y"], parts=[{"name": "two"}], limits={"m": 1})
    assert code == 200, both
    assert both["spec"]["tags"] == ["x", "y"]
    assert [part["name"] for part in both["spec"]["parts"]] == ["one", "two"]
    code, less = await _apply(api, "a", parts=[{"name": "one"}])
    assert code == 200, less
    assert less["spec"]["tags"] == ["y"]
    assert [part["name"] for part in less["spec"]["parts"]] == ["one", "two"]
    assert "whole" not in less["spec"]
    assert less["spec"]["limits"] == {"m": 1}


async def test_a_conflict_names_the_field(api: Api) -> None:
    await _apply(api, "a", size=3, parts=[{"name": "one", "count": 2}], whole={"x": 1, "y": 2})
    code, answer = await _apply(api, "b", parts=[{"name": "one", "count": 3}], whole={"x": 2})
    assert code == 409
    fields = sorted(cause["field"] for cause in answer["details"]["causes"])
    assert fields == ['.spec.parts[name="one"].count', ".spec.whole"]
    code, forced = await _apply(api, "b", force=True, parts=[{"name": "one", "count": 3}], whole={"x": 2})
    assert (code, forced["spec"]["parts"][0]["count"], forced["spec"]["whole"]) == (200, 3, {"x": 2})


async def test_an_unknown_field_is_not_applied(api: Api) -> None:
    code, answer = await _apply(api, "a", sizes=3)
    assert (code, answer["message"]) == (
        500,
        "failed to create typed patch object (/s; shop.example.com/v1, Kind=Shelf): "
        ".spec.sizes: field not declared in schema",
    )
