"""`$(VAR)` against a second reading of the documented rules: one character after another."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wasmlet.errors import Refused
from wasmlet.model.expansion import MOST_BYTES, TooLong, command_and_args, expand
from wasmlet.model.pod import Container

VARIABLES = {"A": "1", "B": "$(A)", "EMPTY": "", "é": "accent"}


def reference(text: str, variables: dict[str, str]) -> str:
    """What the rules say, read from left to right."""
    out, at = [], 0
    while at < len(text):
        following = text[at + 1 : at + 2]
        if text[at] != "$" or not following:
            out.append(text[at])
            at += 1
        elif following == "$":
            out.append("$")
            at += 2
        elif following == "(" and (end := text.find(")", at)) >= 0:
            name = text[at + 2 : end]
            out.append(variables.get(name, f"$({name})"))
            at = end + 1
        else:
            out.append("$" + following)
            at += 2
    return "".join(out)


@given(st.text(alphabet="$()AB x\né", max_size=40))
@example("$(A)$$(A)$(C)")
@example("$")
@example("$(")
@example("$($(A))")
@example("$$$(A)")
@example("$é$(é)")
def test_expand_follows_the_rules(text: str) -> None:
    assert expand(text, VARIABLES) == reference(text, VARIABLES)


@given(st.text())
def test_doubled_dollars_survive_as_they_were(text: str) -> None:
    assert expand(text.replace("$", "$$"), VARIABLES) == text


@given(st.text(alphabet=st.characters(exclude_characters="$")))
def test_text_without_a_dollar_is_left_alone(text: str) -> None:
    assert expand(text, VARIABLES) == text


def test_values_are_not_expanded_again() -> None:
    assert expand("$(B)", VARIABLES) == "$(A)"


def test_the_first_that_knows_a_name_wins() -> None:
    assert expand("$(A) $(C) $(EMPTY)", VARIABLES, {"A": "2", "C": "3", "EMPTY": "no"}) == "1 3 "


def test_command_and_args() -> None:
    container = Container({"name": "c", "command": ["run", "$(A)"], "args": ["$$(A)", "$(NO)", "-$(A)-"]}, "f")
    assert command_and_args(container, VARIABLES) == (["run", "1"], ["$(A)", "$(NO)", "-1-"])


def test_no_command_means_the_image_has_one() -> None:
    assert command_and_args(Container({"name": "c"}, "f"), VARIABLES) == ([], [])


def test_what_grows_without_end_is_refused_before_it_has_grown() -> None:
    ten = "$(A)" * 10
    variables = {"A": "x" * (MOST_BYTES // 10)}
    assert len(expand(ten, variables)) <= MOST_BYTES
    with pytest.raises(TooLong):
        expand("$(A)" * 10_000, variables)
    words = Container({"name": "c", "args": [ten, ten]}, "spec.containers[0]")
    with pytest.raises(Refused, match=r"spec\.containers\[0\]\.args: expands to more than the 2097152 bytes"):
        command_and_args(words, variables)
