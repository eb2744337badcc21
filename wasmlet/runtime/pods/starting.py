"""Failed starts of a container: what is shown and reported, and the pause until the next try.

A change of the pod ends the pause. `container_runner` starts the tries; `plan` and `launch` are one try.
"""

from __future__ import annotations

import asyncio

import structlog

from wasmlet.clock import Backoff, Clock
from wasmlet.concurrency import first_of
from wasmlet.errors import Refused, WasmletError
from wasmlet.failures import described, text_of
from wasmlet.model.status import Waiting
from wasmlet.runtime.images.compiler import CompileError
from wasmlet.runtime.images.images import ImageError
from wasmlet.runtime.pods.restarts import BACKOFF_CAP_SECONDS, BACKOFF_SECONDS
from wasmlet.runtime.shim.instances import Shown

log = structlog.get_logger(__name__)

ERROR_SHOWN_SECONDS = 5.0
"""How long an error is shown as itself before it is shown as the back-off that follows it."""

START_BACKOFF = Backoff(BACKOFF_SECONDS, BACKOFF_CAP_SECONDS, jitter=0.0)
"""The pauses between tries to start a container, which are those between its restarts."""


class FailedStarts:
    """Shows why one container cannot be started.

    Args:
        shown: the container, as its status shows it.
        changed: set when the pod has changed, which ends a pause.
        name: the container, for the node's log.
    """

    def __init__(self, shown: Shown, clock: Clock, changed: asyncio.Event, name: str) -> None:
        self._shown = shown
        self._clock = clock
        self._changed = changed
        self._name = name

    async def show(self, error: Exception, image: str, pause: float, *, first: bool) -> None:
        """Show the error and wait before the next try.

        Args:
            image: the container's, as the manifest has it.
            pause: how long to wait, in seconds.
            first: it is the first try that failed.
        """
        match error:
            case ImageError():
                await self._image_failed(error, error.image or image, pause)
            case Refused():
                await self._failed(error.reason, str(error), pause)
            case CompileError():
                await self._failed("CreateContainerError", str(error), pause)
            case WasmletError() | OSError():
                await self._failed("RunContainerError", str(error), pause)
            case _:
                fields = described(error, first=first)
                log.warning("container: starting it failed", container=self._name, **fields)
                await self._failed("CreateContainerError", f"{type(error).__name__}: {text_of(error)}", pause)

    async def _image_failed(self, error: ImageError, image: str, pause: float) -> None:
        shown = self._shown
        if error.reason == "InvalidImageName":
            shown.say("Warning", "InspectFailed", f'Failed to apply default image tag "{image}": {error}')
            await self._failed(error.reason, str(error), pause)
            return
        if error.reason == "ErrImageNeverPull":
            if shown.state != Waiting(error.reason, str(error)):
                shown.say("Warning", "Failed", f"Error: {error.reason}")
            await self._wait_as(Waiting(error.reason, str(error)), pause)
            return
        shown.say("Warning", "Failed", f'Failed to pull image "{image}": {error}')
        shown.say("Warning", "Failed", f"Error: {error.reason}")
        seconds = min(ERROR_SHOWN_SECONDS, pause)
        await self._wait_as(Waiting(error.reason, str(error)), seconds)
        if self._changed.is_set():
            return
        shown.say("Normal", "BackOff", f'Back-off pulling image "{image}"')
        shown.say("Warning", "Failed", "Error: ImagePullBackOff")
        message = f'Back-off pulling image "{image}": {error.reason}: {error}'
        await self._wait_as(Waiting("ImagePullBackOff", message), pause - seconds)

    async def _failed(self, reason: str, message: str, pause: float) -> None:
        waiting = Waiting(reason, message)
        if self._shown.state != waiting:
            self._shown.say("Warning", "Failed", f"Error: {message}")
        await self._wait_as(waiting, pause)

    async def _wait_as(self, waiting: Waiting, pause: float) -> None:
        self._shown.show(waiting)
        await first_of(self._clock.sleep(pause), self._changed.wait())
