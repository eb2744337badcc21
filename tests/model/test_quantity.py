"""Quantities against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlet.model.quantity import Quantity

SCALES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
    "e3": Fraction(10**3),
    "E-2": Fraction(1, 100),
    "e+6": Fraction(10**6),
}


@st.composite
def written(draw: st.DrawFn) -> tuple[str, Fraction]:
    """A quantity as a manifest may write it, and its value; none above 8Ei, as the API has it, or below a nano."""
    suffix = draw(st.sampled_from(sorted(SCALES)))
    most = min(10**12, int(2**63 / SCALES[suffix]))
    whole = draw(st.integers(0, most))
    finest = SCALES[suffix] >= Fraction(1, 1000)
    decimals = draw(st.sampled_from(["", ".", ".5", ".25", ".125"])) if finest and whole < most else ""
    sign = draw(st.sampled_from(["", "+", "-"]))
    value = (whole + Fraction(f"0{decimals}" if len(decimals) > 1 else "0")) * SCALES[suffix]
    return f"{sign}{whole}{decimals}{suffix}", -value if sign == "-" else value


def exact(quantity: Quantity) -> Fraction:
    return Fraction(quantity.value)


@given(written())
def test_parse_is_exact(pair: tuple[str, Fraction]) -> None:
    text, value = pair
    assert exact(Quantity.parse(text)) == value


@given(written())
def test_what_is_written_reads_back(pair: tuple[str, Fraction]) -> None:
    quantity = Quantity.parse(pair[0])
    again = Quantity.parse(str(quantity))
    assert again == quantity
    assert str(again) == str(quantity)
    assert hash(again) == hash(quantity)


@given(written(), written())
def test_order_is_that_of_the_values(one: tuple[str, Fraction], other: tuple[str, Fraction]) -> None:
    a, b = Quantity.parse(one[0]), Quantity.parse(other[0])
    assert (a < b, a == b, a > b) == (one[1] < other[1], one[1] == other[1], one[1] > other[1])
    assert (a <= b, a >= b) == (one[1] <= other[1], one[1] >= other[1])


@given(st.lists(st.tuples(st.integers(0, 10**9), st.sampled_from(["m", "", "Ki", "Mi", "Gi", "k", "M"]))))
def test_sums_do_not_drift(parts: list[tuple[int, str]]) -> None:
    total = Quantity.parse(0)
    for number, suffix in parts:
        total += Quantity.parse(f"{number}{suffix}")
    assert exact(total) == sum(number * SCALES[suffix] for number, suffix in parts)
    for number, suffix in parts:
        total -= Quantity.parse(f"{number}{suffix}")
    assert not total


@given(st.integers(0, 10**15), st.integers(1, 10**6))
def test_units_are_rounded_up(amount: int, divisor: int) -> None:
    assert Quantity.parse(amount).units(Quantity.parse(divisor)) == -(-amount // divisor)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1024", "1Ki"),
        ("64Mi", "64Mi"),
        ("1.5Gi", "1536Mi"),
        ("1000", "1000"),
        ("0.1", "100m"),
        ("1.5", "1500m"),
        ("100u", "100u"),
        ("0.5u", "500n"),
        ("0", "0"),
        ("1e3", "1000"),
        ("-1Ki", "-1Ki"),
    ],
)
def test_shown_shortest(text: str, shown: str) -> None:
    assert Quantity.parse(text) == Quantity.parse(shown)
    assert str(Quantity.parse(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "m", "1 Gi", "1gi", "1Kib", "0x1", "1e", "1e3Ki", "--1", "1,5", ".", "1K", "nan", "\u0661"]
)
def test_what_is_none_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity: expected a number and a suffix") as raised:
        Quantity.parse(text)
    assert repr(text) in str(raised.value)


def test_numbers_as_yaml_reads_them() -> None:
    assert Quantity.parse(2) == Quantity.parse("2")
    assert Quantity.parse(0.5) == Quantity.parse("500m")
    assert Quantity.parse(1) != 1
