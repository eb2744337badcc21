"""Lifecycle hooks: actions right after the start of a container (postStart) and right before its end (preStop).

A hook is a command in the container, a request to the pod, or a pause (KEP-3960). `container_runner` runs postStart,
and `ending` runs preStop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import Any, Literal

import attrs

from wasmlet.clock import Clock
from wasmlet.concurrency import first_of
from wasmlet.errors import WasmletError
from wasmlet.model.pod import Container, Raw
from wasmlet.runtime.network.http_get import HttpRequest
from wasmlet.runtime.pods import actions
from wasmlet.runtime.pods.actions import Asked
from wasmlet.runtime.pods.restarts import full_name
from wasmlet.runtime.shim.instances import Say

HOOKS = ("postStart", "preStop")


class HookError(WasmletError):
    """The hook failed. The message may hold what a command wrote, so it goes into no event."""


def refusals(container: Container, *, network: bool) -> Iterator[tuple[str, str]]:
    """Paths below the container, and why they are refused: what no kubelet runs either, and signals.

    Args:
        network: whether pods have one here.
    """
    if not (lifecycle := container.raw.get("lifecycle")):
        return
    for hook in HOOKS:
        for path, verdict in actions.refusals(lifecycle.get(hook) or {}, container, network=network, hook=True):
            yield f"lifecycle.{hook}.{path}", verdict
    if lifecycle.get("stopSignal") not in (None, "SIGTERM"):
        yield "lifecycle.stopSignal", "a guest takes no signals; expected none, or SIGTERM"


@attrs.frozen
class HookServices:
    """What a hook needs.

    Attributes:
        asked: the instance, and the way to it.
        say: tells the pod's owner what is odd about it.
    """

    asked: Asked
    clock: Clock
    say: Say


def hook_of(container: Container, name: Literal["postStart", "preStop"]) -> Raw:
    """What the manifest says of this hook; empty where the container has none."""
    return (container.raw.get("lifecycle") or {}).get(name) or {}


async def run(hook: Raw, container: Container, services: HookServices, ended: Awaitable[Any]) -> None:
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
            await services.clock.sleep(hook["sleep"].get("seconds") or 0)
        elif "httpGet" in hook:
            await _request(hook, container, services)
        else:
            await _command(hook.get("exec") or {}, services.asked)
        finished = True

    await first_of(act(), ended)
    if not finished:
        raise HookError("container terminated before the hook finished")


async def _request(hook: Raw, container: Container, services: HookServices) -> None:
    target = services.asked.target
    try:
        request = actions.action_of(hook, container)
        assert isinstance(request, HttpRequest)
        if await actions.request_for_hook(request, services.asked.place):
            address = f"{services.asked.place.address}:{request.port}"
            services.say(
                "Warning",
                "LifecycleHTTPFallback",
                f"request to HTTPS lifecycle hook {address} got HTTP response, retry with HTTP succeeded",
            )
    except (WasmletError, OSError) as error:
        path = hook["httpGet"].get("path") or ""
        raise HookError(
            f'HTTP lifecycle hook ({path}) for Container "{target.container}" in Pod "{full_name(target.pod)}" '
            f"failed - error: {error}"
        ) from error


async def _command(action: Raw, asked: Asked) -> None:
    target, command = asked.target, list(action.get("command") or ())
    try:
        code, output = await asked.commands.run(target.pod, target.container, command)
        if code == 0:
            return
        error, said = f"command '{' '.join(command)}' exited with {code}", output.decode("utf-8", "replace")
    except (WasmletError, OSError) as failure:
        error, said = str(failure), ""
    raise HookError(
        f'Exec lifecycle hook ({command}) for Container "{target.container}" in Pod "{full_name(target.pod)}" '
        f"failed - error: {error}, message: {said!r}"
    )
