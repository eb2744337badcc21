"""What follows from what: one step in a table of transitions, for whatever keeps its state in an enum.

An event that a state does not have is a bug of ours, so it raises. The module is in `worker`, because the shim has such
a table too, and the worker's code has to run without the rest of wasmlet.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeVar

State = TypeVar("State", bound=enum.Enum)
Event = TypeVar("Event", bound=enum.Enum)


class NoTransition(AssertionError):
    """A state does not have an event that happened: a bug of ours."""


def follow(transitions: Mapping[tuple[State, Event], State], state: State, event: Event, what: str) -> State:
    """The state that follows.

    Args:
        what: whose state it is, for the message, as `a pod in stage`.

    Raises:
        NoTransition: the table does not have this event in this state.
    """
    try:
        return transitions[state, event]
    except KeyError:
        raise NoTransition(f"{what} {state.value} has no event {event.value}") from None
