"""The state machine of a container, from its first start to its last end: phases, events and transitions.

`container` keeps the phase of each container. An event that is not possible in a phase is a bug of ours, so it raises.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from wasmlet.worker.transitions import Transitions


class Phase(enum.Enum):
    """A container is in one of these at any time. "The present instance" is the newest one that the shim has had."""

    WAITING = "waiting"
    """There was no instance, and none is being started."""
    STARTING = "starting"
    """The next instance is tried, again and again where that fails; or the shim has it, and its guest has not begun."""
    POST_START = "post-start"
    """The present instance runs, and its postStart hook is not over: it is not shown to run."""
    RUNNING = "running"
    """The present instance runs; it may be about to end."""
    REPLACING = "replacing"
    """The manifest asks for another instance than the present one, which is shown to run until the other is there."""
    BACKING_OFF = "backing-off"
    """The present instance has ended, and the next one has to wait."""
    ENDED = "ended"
    """The present instance has ended, and no next one is tried or waits."""


class PhaseEvent(enum.Enum):
    """What happens to a container."""

    START = "start"
    """The next instance is tried."""
    BEGIN = "begin"
    """The shim has a new instance."""
    RUN = "run"
    """The guest of the present instance has begun."""
    HOOK = "hook"
    """The same, and its postStart hook comes first."""
    HOOK_OVER = "hook-over"
    """The hook is over, well or not."""
    REPLACE = "replace"
    """The manifest asks for another instance in the place of the present one."""
    GIVE_UP = "give-up"
    """The replacement was cancelled: no other instance is started."""
    END = "end"
    """The present instance has ended."""
    BACK_OFF = "back-off"
    """The next instance has to wait."""


_P, _E = Phase, PhaseEvent

TRANSITIONS: Mapping[tuple[Phase, PhaseEvent], Phase] = {
    (_P.WAITING, _E.START): _P.STARTING,
    (_P.WAITING, _E.BEGIN): _P.STARTING,  # a node loop that comes back hears of it from the shim
    (_P.STARTING, _E.START): _P.STARTING,
    (_P.STARTING, _E.BEGIN): _P.STARTING,
    (_P.STARTING, _E.RUN): _P.RUNNING,
    (_P.STARTING, _E.HOOK): _P.POST_START,
    (_P.STARTING, _E.REPLACE): _P.REPLACING,
    (_P.STARTING, _E.END): _P.ENDED,
    (_P.POST_START, _E.HOOK_OVER): _P.RUNNING,
    (_P.POST_START, _E.END): _P.ENDED,
    (_P.RUNNING, _E.REPLACE): _P.REPLACING,
    (_P.RUNNING, _E.END): _P.ENDED,
    (_P.REPLACING, _E.RUN): _P.REPLACING,
    (_P.REPLACING, _E.END): _P.REPLACING,
    (_P.REPLACING, _E.START): _P.REPLACING,
    (_P.REPLACING, _E.BEGIN): _P.STARTING,
    (_P.REPLACING, _E.GIVE_UP): _P.RUNNING,
    (_P.ENDED, _E.HOOK_OVER): _P.ENDED,  # the instance has ended before its hook
    (_P.ENDED, _E.BACK_OFF): _P.BACKING_OFF,
    (_P.ENDED, _E.START): _P.STARTING,
    (_P.ENDED, _E.BEGIN): _P.STARTING,
    (_P.BACKING_OFF, _E.START): _P.STARTING,
    (_P.BACKING_OFF, _E.BEGIN): _P.STARTING,
}

after = Transitions(TRANSITIONS, "a container in phase")
