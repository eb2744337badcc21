"""What the tests of all tables of transitions share: each pair of state and event gives what is expected, or raises."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from wasmlet.worker.transitions import NoTransition


def pairs(states: type[enum.Enum], events: type[enum.Enum]) -> list[tuple[Any, Any]]:
    """Each state with each event."""
    return list(itertools.product(states, events))


def check_step(
    after: Callable[[Any, Any], enum.Enum], state: enum.Enum, event: enum.Enum, follows: Mapping[tuple[str, str], str]
) -> None:
    """See that the event takes the state to the one that `follows` has, by their values, and else raises."""
    expected = follows.get((state.value, event.value))
    if expected is None:
        with pytest.raises(NoTransition, match=f" {state.value} has no event {event.value}$"):
            after(state, event)
    else:
        assert after(state, event) is type(state)(expected)
