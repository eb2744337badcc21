"""What `wasmlet demo` shows of a pod: its phases, what it waits for, and what its containers write, as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any

import attrs
import orjson

from wasmlet.kube import Client, errors, paths
from wasmlet.model.pod import Pod

PATIENCE_SECONDS = 30.0

Say = Callable[[str], None]


@attrs.define
class _Shown:
    """What has been shown of the pod so far."""

    phase: str = ""
    waiting: str = ""

    def tell(self, phase: str, pod: Pod, say: Say) -> None:
        """Say what is new."""
        if phase != self.phase:
            self.phase = phase
            say(f"{'pod/' + pod.name:<14} {phase}")
        waiting = _waiting(pod)
        if waiting != self.waiting and not waiting.startswith("ContainerCreating"):
            self.waiting = waiting
            if waiting:
                say(f"{'pod/' + pod.name:<14} {waiting}")


async def follow(client: Client, pod: Pod, say: Say, *, several: bool) -> str | None:
    """Tell what becomes of a pod until it has ended.

    Args:
        several: whether other pods are shown beside it, so that each line of a log needs a name.

    Returns:
        What went wrong; None where the pod has succeeded.
    """
    shown = _Shown()
    try:
        async with (
            asyncio.timeout(PATIENCE_SECONDS) as patience,
            asyncio.TaskGroup() as group,
            aclosing(_versions(client, pod)) as versions,
        ):
            logs: dict[tuple[str, int], asyncio.Task[None]] = {}
            shows: dict[str, _Log] = {}
            async for pod in versions:
                if pod.phase != "Pending" and patience.when() is not None:
                    patience.reschedule(None)  # it runs: how long is its own affair
                    shown.tell("Running", pod, say)  # a short one may have ended by the time we look
                for key in _started(pod):
                    if key not in logs:
                        log = shows.setdefault(key[0], _Log(client, pod, key[0], say, _prefix(pod, key[0], several)))
                        logs[key] = group.create_task(log.show())
                if pod.finished and logs:
                    await asyncio.wait(logs.values())
                shown.tell(pod.phase, pod, say)
                if pod.finished:
                    break
    except TimeoutError:
        return _why(pod, f"nothing runs after {PATIENCE_SECONDS:g} s")
    if pod.phase == "Succeeded":
        return None
    return _why(pod, f"the pod ended as {pod.phase}" if pod.finished else "the pod was deleted")


def _started(pod: Pod) -> list[tuple[str, int]]:
    """Name and number of each instance of a container that has begun to write."""
    return [
        (str(status.get("name")), int(status.get("restartCount") or 0))
        for which in ("initContainerStatuses", "containerStatuses")
        for status in pod.status.get(which) or ()
        if {"running", "terminated"} & (status.get("state") or {}).keys()
    ]


def _prefix(pod: Pod, container: str, several: bool) -> str:
    names = [pod.name] if several else []
    if len(pod.spec["containers"]) + len(pod.spec.get("initContainers") or ()) > 1:
        names.append(container)
    return f"  {'/'.join(names)} | " if names else "  | "


async def _versions(client: Client, pod: Pod) -> AsyncGenerator[Pod, None]:
    """The pod now and after each change, until it is deleted."""
    yield pod
    params = {
        "watch": "1",
        "fieldSelector": f"metadata.name={pod.name}",
        "resourceVersion": pod.resource_version,
    }
    path = f"/api/v1/namespaces/{pod.namespace}/pods"
    async with client.stream(path, params) as content:
        async for line in content:
            event = orjson.loads(line)
            yield Pod(event["object"])
            if event["type"] == "DELETED":
                return


@attrs.define
class _Log:
    """The log of a container, through the API server and the node: what its instances write, each line once."""

    client: Client
    pod: Pod
    container: str
    say: Say
    prefix: str
    turn: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    last: tuple[str, str] = ("", "")
    """The time of the line that was shown last: whole seconds, and what is below them."""

    async def show(self) -> None:
        """Show the log of the instance before this one, as far as it was not shown, and then this one's as it comes.

        An instance that ends soon may have a successor by the time its log is asked for.
        """
        async with self.turn:
            with suppress(errors.ApiError):  # there is none before the first one
                await self._read({"previous": "true"})
            try:
                await self._read({"follow": "true"})
            except errors.ApiError as error:
                self.say(f"  the log cannot be read: {error}")

    async def _read(self, how: dict[str, str]) -> None:
        params = {"container": self.container, "timestamps": "true", **how}
        seen = self.last  # lines that were written at once have one time
        async with self.client.stream(f"{paths.pod(self.pod.key)}/log", params) as content:
            async for line in content:
                stamp, _, text = line.decode("utf-8", "replace").rstrip("\n").partition(" ")
                whole, _, below = stamp.rstrip("Z").partition(".")
                if (when := (whole, below.ljust(9, "0"))) > seen:
                    self.last = when
                    self.say(self.prefix + text)


def _waiting(pod: Pod) -> str:
    for status in pod.status.get("containerStatuses") or ():
        if waiting := status.get("state", {}).get("waiting"):
            return f"{waiting.get('reason', '')}: {waiting.get('message', '')}".rstrip(": ")
    return ""


def _why(pod: Pod, what: str) -> str:
    """What went wrong, in the pod's own words."""
    said: list[Any] = [what, _waiting(pod), str(pod.status.get("message", ""))]
    for condition in pod.status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            said.append(str(condition.get("message", "")))
    for status in pod.status.get("containerStatuses") or ():
        if ended := status.get("state", {}).get("terminated"):
            said.append(f"exit code {ended['exitCode']} ({ended.get('reason', '')}) {ended.get('message', '')}".strip())
    return "; ".join(filter(None, said))
