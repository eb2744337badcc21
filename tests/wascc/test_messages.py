"""Messages between host and actor."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasmlet_wascc.worker.messages import BadMessage, both, decoded, encoded, field, named, number, octets, text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


@given(value=VALUES)
def test_what_is_encoded_is_decoded_again(value: object) -> None:
    assert decoded(encoded(value)) == value


@given(value=st.integers(-(2**31), 2**31 - 1))
def test_small_numbers_have_32_bits_and_a_sign(value: int) -> None:
    """The decoder of AssemblyScript traps on others."""
    assert encoded(value) == b"\xd2" + value.to_bytes(4, "big", signed=True)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        decoded(data)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 10_000,
        b"\x81\x91" * 10_000,
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xc1",
        b"x" * (17 * 2**20),
        b"\xdd\x00\x07\xa1\x20" + b"\x90" * 500_000,
    ],
)
def test_a_bomb_is_refused(bomb: bytes) -> None:
    with pytest.raises(BadMessage):
        decoded(bomb)


def test_what_follows_a_message_is_passed_over() -> None:
    assert decoded(msgpack.packb({"a": 1}) + b"\xff\xc1 rubbish") == {"a": 1}
    assert decoded(b"") is None


def test_a_number_is_a_key_of_a_map_of_one_alone() -> None:
    """So older actors say which variant of an enum a value is; many numbers could make a map that takes very long."""
    assert decoded(msgpack.packb([{2: [5, 10]}, {"a": {0: None}}])) == [{2: [5, 10]}, {"a": {0: None}}]
    for refused in ({1: 0, 2: 0}, {"a": 0, 1: 0}, {1.5: 0}, {None: 0}):
        with pytest.raises(BadMessage):
            decoded(msgpack.packb(refused))
    with pytest.raises(BadMessage):
        decoded(b"\x81\x90\x00")  # a list as a key


def test_names_have_two_spellings() -> None:
    assert both({"queryString": 1, "body": 2}) == {"queryString": 1, "query_string": 1, "body": 2}
    assert field({"query_string": 1}, "queryString") == 1
    assert field({"queryString": 1}, "queryString") == 1
    assert field({}, "queryString", 5) == 5
    with pytest.raises(BadMessage, match="expected a map with a, found list"):
        field([], "a")


def test_values_without_names_get_them() -> None:
    assert named(["a", 1], ("key", "value", "expires")) == {"key": "a", "value": 1}
    assert named({"key": "a"}, ("key",)) == {"key": "a"}
    assert named(None, ("key",)) is None
    with pytest.raises(BadMessage, match="expected key, value, found 3 values"):
        named([1, 2, 3], ("key", "value"))


def test_fields_have_types() -> None:
    assert text({"a": b"x"}, "a") == "x"
    with pytest.raises(BadMessage, match="expected a to be a text, found int"):
        text({"a": 1}, "a")
    with pytest.raises(BadMessage, match="expected a to be a whole number, found bool"):
        number({"a": True}, "a")
    assert [octets(value) for value in (None, b"x", "x", [120])] == [b"", b"x", b"x", b"x"]
    for wrong in ([256], ["x"], 3.5, {"a": 1}, 2**31, True):
        with pytest.raises(BadMessage):
            octets(wrong)


@pytest.mark.parametrize("value", [2**63, {"a": object()}, b"x" * (17 * 2**20)])
def test_what_no_message_can_have_is_refused(value: object) -> None:
    with pytest.raises(BadMessage):
        encoded(value)
