"""Starting a container, however often that has to be tried: what is shown and told of each failure, and the pauses.

`launch` is one try.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from wasmlet.errors import Refused, WasmletError
from wasmlet.failures import described, text_of
from wasmlet.model.pod import Container
from wasmlet.model.status import Waiting
from wasmlet.runtime import hooks
from wasmlet.runtime.compile import CompileError
from wasmlet.runtime.images import ImageError
from wasmlet.runtime.instances import state_of
from wasmlet.runtime.launch import launch
from wasmlet.runtime.restarts import BACKOFF_CAP_SECONDS, BACKOFF_SECONDS
from wasmlet.runtime.waiting import first_of
from wasmlet.worker import wire

if TYPE_CHECKING:
    from wasmlet.runtime.container import ContainerLife

log = structlog.get_logger(__name__)

ERROR_SHOWN_SECONDS = 5.0
"""How long an error is shown as itself before it is shown as the back-off that follows it."""


async def start(life: ContainerLife) -> None:
    """Start the next instance; return once it runs or has ended."""
    pause = BACKOFF_SECONDS
    while True:
        life.updated.clear()
        spec = life.spec
        try:
            life.hook_failed, life.in_hook = "", bool(hooks.hook_of(spec, "postStart"))
            await launch(life, spec)
            await _post_start(life)
            return
        except ImageError as error:
            await _image_failed(life, spec, error, pause)
        except Refused as error:
            await _failed(life, error.reason, str(error), pause)
        except CompileError as error:
            await _failed(life, "CreateContainerError", str(error), pause)
        except (WasmletError, OSError) as error:
            await _failed(life, "RunContainerError", str(error), pause)
        except Exception as error:
            fields = described(error, first=pause == BACKOFF_SECONDS)
            log.warning("container: starting it failed", pod=str(life.pod.key), container=life.name, **fields)
            await _failed(life, "CreateContainerError", f"{type(error).__name__}: {text_of(error)}", pause)
        pause = min(pause * 2, BACKOFF_CAP_SECONDS)


async def _post_start(life: ContainerLife) -> None:
    """Run the hook; until it is over the container is not shown to run, and what comes next waits, as at a kubelet."""
    record, services = life.record, life.pod.around
    if record is None or not life.in_hook:
        return
    try:
        ended = services.client.wait(record.id, wire.ENDED)
        hook = hooks.hook_of(life.spec, "postStart")
        await hooks.run(hook, life.target, services.commands, services.clock, ended)
    except (WasmletError, OSError) as error:
        # What a command has written may be secret, so it goes into no event; the status is the pod's own.
        life.say("Warning", "FailedPostStartHook", "PostStartHook failed")
        life.hook_failed = str(error)
    finally:
        life.in_hook = False
    if not life.hook_failed and life.record is not None:
        life.show(state_of(life.record))


async def _image_failed(life: ContainerLife, spec: Container, error: ImageError, pause: float) -> None:
    image = error.image or spec.image
    if error.reason == "InvalidImageName":
        life.say("Warning", "InspectFailed", f'Failed to apply default image tag "{image}": {error}')
        await _failed(life, error.reason, str(error), pause)
        return
    if error.reason == "ErrImageNeverPull":
        if life.state != Waiting(error.reason, str(error)):
            life.say("Warning", "Failed", f"Error: {error.reason}")
        await _wait_as(life, Waiting(error.reason, str(error)), pause)
        return
    clock = life.pod.around.clock
    life.say("Warning", "Failed", f'Failed to pull image "{image}": {error}')
    life.say("Warning", "Failed", f"Error: {error.reason}")
    life.show(Waiting(error.reason, str(error)))
    shown = min(ERROR_SHOWN_SECONDS, pause)
    await first_of(clock.sleep(shown), life.updated.wait())
    if life.updated.is_set():
        return
    life.say("Normal", "BackOff", f'Back-off pulling image "{image}"')
    life.say("Warning", "Failed", "Error: ImagePullBackOff")
    message = f'Back-off pulling image "{image}": {error.reason}: {error}'
    life.show(Waiting("ImagePullBackOff", message))
    await first_of(clock.sleep(pause - shown), life.updated.wait())


async def _failed(life: ContainerLife, reason: str, message: str, pause: float) -> None:
    """Show why the container cannot be started, and wait; a change of the pod ends the wait."""
    waiting = Waiting(reason, message)
    if life.state != waiting:
        life.say("Warning", "Failed", f"Error: {message}")
    await _wait_as(life, waiting, pause)


async def _wait_as(life: ContainerLife, waiting: Waiting, pause: float) -> None:
    life.show(waiting)
    await first_of(life.pod.around.clock.sleep(pause), life.updated.wait())
