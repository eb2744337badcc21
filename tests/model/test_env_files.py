"""Files of variables, as fileKeyRef reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlet.model.env_files import find

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,9}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="'\r", exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A='one'", "one"),
        ("\n  # A='no'\n\tA='one two'   # and why\n", "one two"),
        ("B='x'\nA='y'\nA='z'\n", "y"),
        ("A='two\nlines'\n", "two\nlines"),
        ("A='#=\"$B\\'\n", '#="$B\\'),
        ("A=''", ""),
        ("A=\nB='x'\n", ""),
        ("A= 'x'\n", ""),
        ("AB='x'\n", None),
        ("A='x'\nnot one\n", "x"),
        ("", None),
    ],
)
def test_a_key(text: str, value: str | None) -> None:
    assert find(text, "A") == value


@pytest.mark.parametrize("line", ["A", "A=x", 'A="x"', "A ='x'", "='x'", "A='x", "A='x' y", "A B='x'"])
def test_what_is_none(line: str) -> None:
    with pytest.raises(ValueError, match="line 2: expected NAME='value'"):
        find(f"B='secret'\n{line}\n", "A")


@given(st.dictionaries(NAMES, VALUES, min_size=1))
def test_what_is_written_is_found(variables: dict[str, str]) -> None:
    text = "".join(f"{name}='{value}'\n" for name, value in variables.items())
    assert {name: find(text, name) for name in variables} == variables


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    problem, found = "", None
    try:
        found = find(text, "A")
    except ValueError as error:
        problem = str(error)
    assert problem.startswith("line ") if problem else found is None or "A=" in text
