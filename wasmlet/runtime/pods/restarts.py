"""How long to wait before an ended container is restarted. `wasmlet.model.restart` decides whether it is restarted."""

from __future__ import annotations

from wasmlet.clock import Backoff
from wasmlet.model.pod import PodKey

BACKOFF_SECONDS = 10.0
BACKOFF_CAP_SECONDS = 300.0
"""The kubelet's back-off between restarts, and its cap."""

POD_BACKOFF = Backoff(1.0, BACKOFF_CAP_SECONDS, jitter=0.0)
"""The pauses between tries of what a whole pod needs: its user, its network, and the run of its containers."""

BACKOFF_RESET_SECONDS = 600.0
"""A container that has run this long starts over with the shortest back-off."""


def pauses(backoff: float, ran: float, cap: float = BACKOFF_CAP_SECONDS) -> tuple[float, float]:
    """How long to wait before a restart, and what to remember as the back-off of the next instance, in seconds.

    Args:
        backoff: what was remembered for the instance that has ended; 0 for the first.
        ran: how long that instance ran.
        cap: the longest pause; one that is shorter than the first pause shortens that too (KEP-4603).
    """
    pause = 0.0 if ran >= BACKOFF_RESET_SECONDS else min(backoff, cap)
    return pause, min(pause * 2 or BACKOFF_SECONDS, cap)


def full_name(key: PodKey) -> str:
    """A pod as the kubelet's messages name it."""
    return f"{key.name}_{key.namespace}({key.uid})"


def duration(seconds: float) -> str:
    """As Go prints a duration: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
