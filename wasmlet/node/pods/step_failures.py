"""Reports the failed steps of a pod: each one in the log, and to the pod's owner only when the reason is a new one."""

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

    `_newest` is the error text of the last step; "" if and only if that step has not failed.

    It is handed `tell` with each failure, and does not keep it: a pod's task, which has the failures, would be in a
    circle of references (see `StepLoop`).
    """

    __slots__ = ("_key", "_newest")

    def __init__(self, key: PodKey) -> None:
        self._key = key
        self._newest = ""

    def none(self) -> None:
        """The last step has not failed."""
        self._newest = ""

    def failed(self, error: Exception, tell: Callable[[str, str], None]) -> None:
        """The last step failed, and will be repeated.

        Args:
            tell: called if the error text differs from that of the step before. Its arguments are the text for the
                pod's owner, and the `waiting.reason` of the pod's containers.
        """
        text = text_of(error)
        log.warning("pod: a step failed, trying again", pod=str(self._key), **described(error, first=not self._newest))
        if text == self._newest:
            return
        self._newest = text
        if not isinstance(error, errors.ApiError):
            tell(text, error.reason if isinstance(error, NotYet) else "CreateContainerError")
