"""A name that is somebody else's word stays in its place of a path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlet.kube import errors, paths

COLLECTION = "/api/v1/namespaces/n/secrets"


@pytest.mark.parametrize("name", ["a", "a-b", "a.b-c.d", "0", "a" * 253])
def test_a_name_that_an_object_can_have(name: str) -> None:
    assert paths.named(COLLECTION, name) == f"{COLLECTION}/{name}"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../pods/x", "a/b", "a%2fb", "a,metadata.namespace=b", "A", "a b", "a?x=y", "-a", "a\n"]
)
def test_another_leads_nowhere(name: str) -> None:
    assert not paths.may_name(name)
    with pytest.raises(errors.ObjectNotFound, match="is not the name of an object"):
        paths.named(COLLECTION, name)


@given(st.text(st.sampled_from("a0-./%,=\\?#;: \n"), max_size=260))
def test_whatever_is_let_through_is_one_segment(name: str) -> None:
    if paths.may_name(name):
        assert not set(name) - set("a0-.")
        assert name not in (".", "..")
        assert 0 < len(name) <= 253
