"""Lifecycle hooks: what a container's manifest has done right after its start and right before its end.

A hook is a command in the container or a pause (KEP-3960). `launch` runs postStart, `ending` runs preStop.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from wasmlet.errors import WasmletError
from wasmlet.model.pod import Raw
from wasmlet.runtime.restarts import full_name
from wasmlet.runtime.waiting import first_of
from wasmlet.worker import wire

if TYPE_CHECKING:
    from wasmlet.runtime.container import ContainerLife
    from wasmlet.runtime.worker import ContainerRecord

HOOKS = ("postStart", "preStop")
NETWORK = ("httpGet", "tcpSocket")


class HookError(WasmletError):
    """The hook failed. The message may hold what a command wrote, so it goes into no event."""


def refusals(container: Raw) -> Iterator[tuple[str, str]]:
    """Paths below the container, and why they are refused: hooks over a network, and signals."""
    lifecycle = container.get("lifecycle") or {}
    for hook in HOOKS:
        for name in NETWORK:
            if name in (lifecycle.get(hook) or {}):
                yield f"lifecycle.{hook}.{name}", "a guest has no network yet; expected exec or sleep"
    if lifecycle.get("stopSignal") not in (None, "SIGTERM"):
        yield "lifecycle.stopSignal", "a guest takes no signals; expected none, or SIGTERM"


async def run(life: ContainerLife, hook: Literal["postStart", "preStop"], record: ContainerRecord) -> None:
    """Run the hook, if the container has one, for as long as this instance lives.

    Raises:
        HookError: it failed, or the instance ended before it was over.
    """
    handler = (life.spec.raw.get("lifecycle") or {}).get(hook)
    if not handler:
        return
    around, finished = life.pod.around, False

    async def act() -> None:
        nonlocal finished
        if "sleep" in handler:
            await around.clock.sleep(handler["sleep"].get("seconds") or 0)
        else:
            await _command(life, handler.get("exec") or {})
        finished = True

    await first_of(act(), around.client.wait(record.id, wire.ENDED))
    if not finished:
        raise HookError("container terminated before the hook finished")


async def _command(life: ContainerLife, action: Raw) -> None:
    command = list(action.get("command") or ())
    try:
        code, output = await life.pod.around.commands.run(life.pod.key, life.name, command)
        if code == 0:
            return
        error, said = f"command '{' '.join(command)}' exited with {code}", output.decode("utf-8", "replace")
    except (WasmletError, OSError) as failure:
        error, said = str(failure), ""
    raise HookError(
        f'Exec lifecycle hook ({command}) for Container "{life.name}" in Pod "{full_name(life.pod.key)}" '
        f"failed - error: {error}, message: {said!r}"
    )
