"""Selectors as functions: every operator, everything that is no selector, and what must hold for any of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.selectors import parse_fields, parse_labels
from wasmlet.controlplane.storage.status import ApiError
from wasmlet.model.placement import Requirement

words = st.from_regex(r"[a-z]([a-z0-9-]{0,4}[a-z0-9])?", fullmatch=True)
keys = words | st.builds("{}.example.com/{}".format, words, words)
found = st.dictionaries(keys, words, max_size=4)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("a=1", True),
        ("a==1", True),
        ("a=2", False),
        ("a!=2", True),
        ("c!=2", True),
        ("a", True),
        ("c", False),
        ("!c", True),
        ("! a", False),
        ("a in (1, 2)", True),
        ("a in (2)", False),
        ("a notin (2,3)", True),
        ("c notin (2)", True),
        ("a>0", True),
        ("a>1", False),
        ("a<2", True),
        ("b<2", False),
        ("a=1,b=x", True),
        ("a=1,b=y", False),
        ("e=", True),
        ("a in (1),!c,b notin (y),e", True),
        ("example.com/d=1", True),
        ("in=1", False),
    ],
)
def test_labels(text: str, fits: bool) -> None:
    labels = {"a": "1", "b": "x", "e": "", "example.com/d": "1"}
    assert all(requirement.matches(labels) for requirement in parse_labels(text)) is fits


@pytest.mark.parametrize(
    "text", ["a b", "=1", "a in 1", "a in (1", "a,,b", "a=1,", "(", "a>x", "!", "a=b=c", "-a", "a=b!"]
)
def test_what_is_no_label_selector(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_labels(text)
    assert caught.value.code == 400


@given(labels=found)
def test_an_object_fits_the_selector_of_its_own_labels(labels: dict[str, str]) -> None:
    text = ",".join(f"{key}={value}" for key, value in labels.items())
    assert all(requirement.matches(labels) for requirement in parse_labels(text))


@given(labels=found, key=keys, values=st.lists(words, min_size=1, max_size=3))
def test_an_operator_and_its_opposite_part_the_world(labels: dict[str, str], key: str, values: list[str]) -> None:
    choices = ",".join(values)
    for yes, no in ((f"{key} in ({choices})", f"{key} notin ({choices})"), (key, f"!{key}")):
        first, second = (parse_labels(text)[0].matches(labels) for text in (yes, no))
        assert first is not second


@given(st.text(alphabet="ab=!<>(), \tin", max_size=12))
def test_any_text_is_a_selector_or_a_bad_request(text: str) -> None:
    code, parsed = 400, tuple[Requirement, ...]()
    try:
        code, parsed = 200, parse_labels(text)
    except ApiError as error:
        code = error.code
    assert code in (200, 400)
    assert all(isinstance(requirement.matches({"a": "b"}), bool) for requirement in parsed)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("spec.nodeName=n1", True),
        ("spec.nodeName==n1", True),
        ("spec.nodeName!=n1", False),
        ("status.phase=", True),
        ("metadata.name=p,spec.nodeName=n1", True),
        ("metadata.name=q,spec.nodeName=n1", False),
        ("spec.hostNetwork=false", True),
        ("metadata.namespace=default", True),
    ],
)
def test_fields(text: str, fits: bool) -> None:
    pod = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "n1"}}
    assert all(requirement.matches(pod) for requirement in parse_fields(core("pods"), text)) is fits


@pytest.mark.parametrize("text", ["spec.volumes=x", "metadata.name", "=x", "metadata.name in (a)"])
def test_what_is_no_field_selector(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_fields(core("pods"), text)
    assert caught.value.code == 400


def test_commas_and_backslashes_in_values() -> None:
    parsed = parse_fields(core("secrets"), r"type=a\,b\=c\\d")
    assert [requirement.value for requirement in parsed] == [r"a,b=c\d"]
