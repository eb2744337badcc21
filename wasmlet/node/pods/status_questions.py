"""Limits how often a provider is asked for a pod's status: less and less often while it cannot answer."""

from __future__ import annotations

import random
from collections.abc import Iterator

import structlog

from wasmlet.clock import Backoff, Clock
from wasmlet.failures import described, text_of
from wasmlet.model.pod import PodKey

log = structlog.get_logger(__name__)

LONGEST_PAUSE_SECONDS = 10.0
"""The longest pause between two questions for a pod's status, while they fail."""


class StatusQuestions:
    """The questions for one pod.

    Args:
        poll_seconds: the shortest pause between two questions, while they fail.
    """

    __slots__ = ("_clock", "_key", "_not_before", "_pauses", "_poll_seconds", "_rng")

    def __init__(self, key: PodKey, poll_seconds: float, clock: Clock, rng: random.Random) -> None:
        self._key = key
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._rng = rng
        self._not_before = float("-inf")
        self._pauses: Iterator[float] | None = None
        """None if and only if the last question was answered."""

    @property
    def allowed(self) -> bool:
        """Whether the pause after a question that failed is over."""
        return self._clock.monotonic() >= self._not_before

    def answered(self) -> None:
        """The provider has said the status, or that it does not know the pod."""
        self._pauses = None

    def failed(self, error: Exception) -> None:
        """The status is not to be had: ask ever less often, and log it as a warning once."""
        if self._pauses is None:
            log.warning("the provider cannot say a pod's status, trying again", pod=str(self._key), **described(error))
            backoff = Backoff(self._poll_seconds, max(self._poll_seconds, LONGEST_PAUSE_SECONDS))
            self._pauses = backoff.pauses(self._rng)
        else:
            log.debug("the provider cannot say a pod's status", pod=str(self._key), error=text_of(error))
        self._not_before = self._clock.monotonic() + next(self._pauses)
