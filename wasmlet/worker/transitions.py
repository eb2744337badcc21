"""A table of transitions for a state machine: from a state and an event to the next state.

An event that is not possible in a state is a bug of ours, so it raises. This module is in `worker` because the shim
uses it, too, and the worker's code must run without the rest of wasmlet.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Generic, TypeVar

State = TypeVar("State", bound=enum.Enum)
Event = TypeVar("Event", bound=enum.Enum)


class NoTransition(AssertionError):
    """A state does not have an event that happened: a bug of ours."""


class Transitions(Generic[State, Event]):
    """The state that follows: `after = Transitions(table, ...)`, then `after(state, event)`.

    Args:
        what: whose state it is, for the message, as `a pod in stage`.
    """

    def __init__(self, table: Mapping[tuple[State, Event], State], what: str) -> None:
        self._table = table
        self._what = what

    def __call__(self, state: State, event: Event) -> State:
        """The state that follows.

        Raises:
            NoTransition: the table does not have this event in this state.
        """
        try:
            return self._table[state, event]
        except KeyError:
            raise NoTransition(f"{self._what} {state.value} has no event {event.value}") from None
