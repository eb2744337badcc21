"""Lifecycle hooks: what a container's manifest has done right after its start and right before its end.

A hook is a command in the container or a pause (KEP-3960). `starting` runs postStart, `ending` runs preStop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import Any, Literal

from wasmlet.clock import Clock
from wasmlet.concurrency import first_of
from wasmlet.errors import WasmletError
from wasmlet.model.pod import Container, Raw
from wasmlet.runtime.pods.restarts import full_name
from wasmlet.runtime.shim.instances import Target
from wasmlet.runtime.streams.commands import Commands

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


def hook_of(container: Container, name: Literal["postStart", "preStop"]) -> Raw:
    """What the manifest says of this hook; empty where the container has none."""
    return (container.raw.get("lifecycle") or {}).get(name) or {}


async def run(hook: Raw, target: Target, commands: Commands, clock: Clock, ended: Awaitable[Any]) -> None:
    """Run a hook, for as long as the instance lives.

    Args:
        hook: what the manifest says of it, see `hook_of`.
        ended: done when the instance has ended.

    Raises:
        HookError: it failed, or the instance ended before it was over.
    """
    finished = False

    async def act() -> None:
        nonlocal finished
        if "sleep" in hook:
            await clock.sleep(hook["sleep"].get("seconds") or 0)
        else:
            await _command(hook.get("exec") or {}, target, commands)
        finished = True

    await first_of(act(), ended)
    if not finished:
        raise HookError("container terminated before the hook finished")


async def _command(action: Raw, target: Target, commands: Commands) -> None:
    command = list(action.get("command") or ())
    try:
        code, output = await commands.run(target.pod, target.container, command)
        if code == 0:
            return
        error, said = f"command '{' '.join(command)}' exited with {code}", output.decode("utf-8", "replace")
    except (WasmletError, OSError) as failure:
        error, said = str(failure), ""
    raise HookError(
        f'Exec lifecycle hook ({command}) for Container "{target.container}" in Pod "{full_name(target.pod)}" '
        f"failed - error: {error}, message: {said!r}"
    )
