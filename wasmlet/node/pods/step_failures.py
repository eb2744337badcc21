"""What is told of a pod's steps that fail: once for each reason, where the pod's owner looks."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from wasmlet.errors import NotYet
from wasmlet.failures import described, text_of
from wasmlet.kube import errors
from wasmlet.model.pod import PodKey

log = structlog.get_logger(__name__)


class StepFailures:
    """The failures of one pod's steps.

    `_newest` is the text of what the last step failed with; "" if and only if it has not failed.

    Args:
        tell: tells the pod's owner, who has not heard this text, unless another reason came between; with the reason
            that its containers wait for, should they wait.
    """

    __slots__ = ("_key", "_newest", "_tell")

    def __init__(self, key: PodKey, tell: Callable[[str, str], None]) -> None:
        self._key = key
        self._tell = tell
        self._newest = ""

    def none(self) -> None:
        """The last step has not failed."""
        self._newest = ""

    def failed(self, error: Exception) -> None:
        """The last step failed, and will be repeated."""
        text = text_of(error)
        log.warning("pod: a step failed, trying again", pod=str(self._key), **described(error, first=not self._newest))
        if text == self._newest:
            return
        self._newest = text
        if not isinstance(error, errors.ApiError):
            self._tell(text, error.reason if isinstance(error, NotYet) else "CreateContainerError")
