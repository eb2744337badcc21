"""The state machine of a process for a guest, from when it is wanted until its end is on record.

`processes` keeps the stage of each process. An event that is not possible in a stage is a bug of ours, so it raises.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from .. import wire
from ..transitions import Transitions


class Stage(enum.Enum):
    """A process is in one of these at any time."""

    NEW = "new"
    """It has no streams, and nothing that could run it."""
    WAITING = "waiting"
    """It has streams, and waits for a child (a dense container: until its worker can be given it)."""
    STARTING = "starting"
    """The child (or the worker) has all that makes it the guest, which has not begun as far as is known."""
    RUNNING = "running"
    """The guest has begun, and its process has not been reaped."""
    REAPED_UNBEGUN = "reaped-unbegun"
    """Its process has been reaped, and has not said that the guest began. It may have: that is read later."""
    REAPED = "reaped"
    """Its process has been reaped, after the guest began."""
    GIVEN_UP = "given-up"
    """It has no process and gets none."""
    ENDED = "ended"
    """Its end is on record. Nothing happens to it any more."""

    @property
    def over(self) -> bool:
        """Whether there is no process any more, and will be none."""
        return self in _OVER

    @property
    def shown(self) -> str:
        """The state of its record: `wire.STARTING`, `wire.RUNNING` or `wire.ENDED`."""
        if self is Stage.ENDED:
            return wire.ENDED
        return wire.RUNNING if self in _BEGUN else wire.STARTING


class Event(enum.Enum):
    """What happens to a process."""

    PREPARE = "prepare"
    """Its streams are made."""
    HAND_OVER = "hand-over"
    """A child, or the worker, has been given all that makes it the guest."""
    START_OVER = "start-over"
    """The worker that was to run a dense container has ended before the guest began. (What waits for a child of its
    own goes on waiting where the zygote dies, with the streams that it has.)"""
    BEGIN = "begin"
    """The child says that the guest begins."""
    REAP = "reap"
    """The process has ended (of a dense container: its thread), and how is known."""
    GIVE_UP = "give-up"
    """It cannot have a process, or is stopped before it has one."""
    COMPLETE = "complete"
    """All that it may have said has been read, and its end has been written down."""


_S, _E = Stage, Event

_OVER = frozenset((_S.REAPED_UNBEGUN, _S.REAPED, _S.GIVEN_UP, _S.ENDED))
_BEGUN = frozenset((_S.RUNNING, _S.REAPED))

TRANSITIONS: Mapping[tuple[Stage, Event], Stage] = {
    (_S.NEW, _E.PREPARE): _S.WAITING,
    (_S.NEW, _E.GIVE_UP): _S.GIVEN_UP,
    (_S.WAITING, _E.HAND_OVER): _S.STARTING,
    (_S.WAITING, _E.START_OVER): _S.NEW,
    (_S.WAITING, _E.GIVE_UP): _S.GIVEN_UP,
    (_S.STARTING, _E.START_OVER): _S.NEW,
    (_S.STARTING, _E.BEGIN): _S.RUNNING,
    (_S.STARTING, _E.REAP): _S.REAPED_UNBEGUN,
    (_S.STARTING, _E.GIVE_UP): _S.GIVEN_UP,  # a dense container whose guest cannot begin: its worker goes on
    (_S.RUNNING, _E.REAP): _S.REAPED,
    (_S.REAPED_UNBEGUN, _E.BEGIN): _S.REAPED,  # the kernel told of the end before we read what the child had said
    (_S.REAPED_UNBEGUN, _E.COMPLETE): _S.ENDED,
    (_S.REAPED, _E.COMPLETE): _S.ENDED,
    (_S.GIVEN_UP, _E.COMPLETE): _S.ENDED,
}

after = Transitions(TRANSITIONS, "a process in stage")
