"""Where a pod stands with the provider and with the API: stages, events, and which stage follows from which.

`pod_task` keeps the stage of each pod. An event that a stage does not have is a bug of ours, so it raises.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from wasmlet.worker.transitions import Transitions


class Stage(enum.Enum):
    """A pod is in one of these at any time. In the first six the API has the pod, in the last four it has not."""

    NEW = "new"
    """The provider has nothing of the pod, as far as we know."""
    OFFERED = "offered"
    """`create_pod` was called and has not accepted the pod: the provider may have something of it."""
    ACCEPTED = "accepted"
    """The provider holds the pod."""
    KEPT = "kept"
    """Nothing of the pod runs, and the provider will not get it again; it may have the pod's logs."""
    ENDED = "ended"
    """Nothing of the pod is left with the provider, and it will not get the pod again."""
    FORGETTING = "forgetting"
    """The same, and the API was asked to forget the pod: the watch will say when it has."""
    WITHDRAWN = "withdrawn"
    """The API has no such pod any more; the provider did not accept it, and may have something of it."""
    ORPHANED = "orphaned"
    """The API has no such pod any more; the provider holds it."""
    LEFT = "left"
    """The API has no such pod any more; nothing of it runs, and the provider may have its logs."""
    OVER = "over"
    """Neither the provider nor the API has anything of the pod."""

    @property
    def accepted(self) -> bool:
        """Whether the provider holds the pod, so that it can be asked for its status."""
        return self in (Stage.ACCEPTED, Stage.ORPHANED)

    @property
    def may_be_held(self) -> bool:
        """Whether the API has the pod, and the provider holds it or a part of it."""
        return self in (Stage.OFFERED, Stage.ACCEPTED)

    @property
    def ended(self) -> bool:
        """Whether nothing of the pod runs, and the provider will not get it again."""
        return self in (Stage.KEPT, Stage.LEFT) or self.forgotten

    @property
    def forgotten(self) -> bool:
        """The same, and nothing of the pod is left with the provider."""
        return self in (Stage.ENDED, Stage.FORGETTING, Stage.OVER)

    @property
    def gone(self) -> bool:
        """Whether the API has no such pod any more."""
        return self in (Stage.WITHDRAWN, Stage.ORPHANED, Stage.LEFT, Stage.OVER)


class StageEvent(enum.Enum):
    """What happens to a pod."""

    OFFER = "offer"
    """`create_pod` is called."""
    ACCEPT = "accept"
    """`create_pod` has returned."""
    REJECT = "reject"
    """The pod is not to run here (`Rejected`)."""
    LOSE = "lose"
    """The provider says that it does not know the pod, which it held."""
    STOP = "stop"
    """`end_pod` has returned, or there is nothing to call it for."""
    END = "end"
    """`delete_pod` has returned, or there is nothing to call it for."""
    FORGET = "forget"
    """The API was asked to forget the pod."""
    RESTORE = "restore"
    """The API server was restored from a backup that has the pod: what it was asked since may be lost."""
    VANISH = "vanish"
    """The API has no such pod any more."""


_S, _E = Stage, StageEvent

TRANSITIONS: Mapping[tuple[Stage, StageEvent], Stage] = {
    (_S.NEW, _E.OFFER): _S.OFFERED,
    (_S.NEW, _E.REJECT): _S.NEW,  # by this node, before the provider was asked
    (_S.NEW, _E.STOP): _S.KEPT,
    (_S.NEW, _E.END): _S.ENDED,
    (_S.NEW, _E.RESTORE): _S.NEW,
    (_S.NEW, _E.VANISH): _S.WITHDRAWN,
    (_S.OFFERED, _E.OFFER): _S.OFFERED,  # the call has failed, and is made again
    (_S.OFFERED, _E.ACCEPT): _S.ACCEPTED,
    (_S.OFFERED, _E.REJECT): _S.NEW,
    (_S.OFFERED, _E.STOP): _S.KEPT,
    (_S.OFFERED, _E.END): _S.ENDED,
    (_S.OFFERED, _E.RESTORE): _S.OFFERED,
    (_S.OFFERED, _E.VANISH): _S.WITHDRAWN,
    (_S.ACCEPTED, _E.REJECT): _S.ACCEPTED,  # a change of the pod: what runs goes on
    (_S.ACCEPTED, _E.LOSE): _S.NEW,
    (_S.ACCEPTED, _E.STOP): _S.KEPT,
    (_S.ACCEPTED, _E.END): _S.ENDED,
    (_S.ACCEPTED, _E.RESTORE): _S.ACCEPTED,
    (_S.ACCEPTED, _E.VANISH): _S.ORPHANED,
    (_S.KEPT, _E.END): _S.ENDED,
    (_S.KEPT, _E.RESTORE): _S.KEPT,
    (_S.KEPT, _E.VANISH): _S.LEFT,
    (_S.ENDED, _E.FORGET): _S.FORGETTING,
    (_S.ENDED, _E.RESTORE): _S.ENDED,
    (_S.ENDED, _E.VANISH): _S.OVER,
    (_S.FORGETTING, _E.RESTORE): _S.ENDED,
    (_S.FORGETTING, _E.VANISH): _S.OVER,
    # A call may be under way when the pod vanishes, and comes to its end before it is cancelled.
    (_S.WITHDRAWN, _E.OFFER): _S.WITHDRAWN,
    (_S.WITHDRAWN, _E.ACCEPT): _S.ORPHANED,
    (_S.WITHDRAWN, _E.REJECT): _S.WITHDRAWN,
    (_S.WITHDRAWN, _E.END): _S.OVER,
    (_S.WITHDRAWN, _E.VANISH): _S.WITHDRAWN,
    (_S.ORPHANED, _E.REJECT): _S.ORPHANED,
    (_S.ORPHANED, _E.LOSE): _S.WITHDRAWN,
    (_S.ORPHANED, _E.END): _S.OVER,
    (_S.ORPHANED, _E.VANISH): _S.ORPHANED,
    (_S.LEFT, _E.END): _S.OVER,
    (_S.LEFT, _E.VANISH): _S.LEFT,
    (_S.OVER, _E.FORGET): _S.OVER,  # it vanished before the API had answered
    (_S.OVER, _E.VANISH): _S.OVER,
}

after = Transitions(TRANSITIONS, "a pod in stage")
