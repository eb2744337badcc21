"""Follows a pod for `wasmlet demo`: prints its phases, what it waits for, and what its containers write, as it comes.

Logs come through the API server, as with `kubectl logs -f`. A container that fails is started again at once. Two of its
instances may have ended before the API server hears of the first. Then the API gives the second one's log only, also as
the previous one. So what an earlier instance wrote is read from the node, which has its log for as long as a kubelet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any

import attrs
import orjson

from wasmlet.errors import NotFound
from wasmlet.kube import Client, errors, paths
from wasmlet.model.pod import Pod, PodKey
from wasmlet.sizes import size

PATIENCE_SECONDS = 30.0
COMPILE_SECONDS = 600.0
"""How much longer the demo waits for a pod while its module is compiled: longer than the node itself does."""
LONGEST_LINE = 64 * 1024
"""How many bytes of a line of a log are shown."""
FUTILE_SECONDS = {
    "CreateContainerError": 0.0,
    "CreateContainerConfigError": 5.0,  # a manifest may have the ConfigMap behind the pod
    "ErrImageNeverPull": 0.0,
    "InvalidImageName": 0.0,
    "Unschedulable": 5.0,
}
"""Reasons for waiting that do not go away by themselves, and how many seconds the demo still waits for such a pod."""

Say = Callable[[str], None]
Earlier = Callable[[PodKey, str], Sequence[AsyncGenerator[bytes, None]]]
"""The logs of a container's instances before its present one, oldest first, each line with its time."""


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
        waiting = _waiting(pod) or _unscheduled(pod)
        if waiting != self.waiting and not waiting.startswith("ContainerCreating"):
            self.waiting = waiting
            if waiting:
                say(f"{'pod/' + pod.name:<14} {waiting}")


async def follow(client: Client, pod: Pod, say: Say, earlier: Earlier, busy: Say, *, several: bool) -> str | None:
    """Tell what becomes of a pod until it has ended.

    Args:
        earlier: reads what the node still has of a container's earlier instances.
        busy: takes what is worked at for the pod; "" for nothing.
        several: whether other pods are shown beside it, so that each line of a log needs a name.

    Returns:
        What went wrong; None where the pod has succeeded.
    """
    shown, waits, futile = _Shown(), "", False
    last = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    try:
        async with (
            asyncio.timeout_at(last) as patience,
            asyncio.TaskGroup() as group,
            aclosing(_versions(client, pod)) as versions,
        ):
            logs: dict[tuple[str, int], asyncio.Task[None]] = {}
            shows: dict[str, _Log] = {}
            async for pod in versions:
                if pod.phase != "Pending" and patience.when() is not None:
                    patience.reschedule(None)  # it runs: how long is its own affair
                    shown.tell("Running", pod, say)  # a short one may have ended by the time we look
                elif pod.phase == "Pending" and _working(pod):  # for which the node has a limit of its own
                    last = asyncio.get_running_loop().time() + COMPILE_SECONDS
                    patience.reschedule(last)
                elif pod.phase == "Pending" and (reason := _reason(pod)) != waits:
                    waits, futile = reason, reason in FUTILE_SECONDS
                    now = asyncio.get_running_loop().time()
                    patience.reschedule(min(last, now + FUTILE_SECONDS.get(waits, PATIENCE_SECONDS)))
                for key in _started(pod):
                    if key not in logs:
                        name, prefix = key[0], _prefix(pod, key[0], several)
                        log = shows.setdefault(name, _Log(client, pod.key, name, earlier, say, prefix))
                        logs[key] = group.create_task(log.show())
                if pod.finished and logs:
                    await asyncio.wait(logs.values())
                shown.tell(pod.phase, pod, say)
                busy(_working(pod))
                if pod.finished:
                    break
    except TimeoutError:
        busy("")
        return why(pod, "nothing runs" if futile else f"nothing runs after {PATIENCE_SECONDS:g} s")
    if pod.phase == "Succeeded":
        return None
    return why(pod, f"the pod ended as {pod.phase}" if pod.finished else "the pod was deleted")


def _started(pod: Pod) -> list[tuple[str, int]]:
    """Name and number of each instance of a container that has begun to write."""
    return [
        (str(status.get("name")), int(status.get("restartCount") or 0))
        for which in ("initContainerStatuses", "containerStatuses")
        for status in pod.status.get(which) or ()
        # One that waits to be started again has written, too, and may have been seen neither running nor terminated.
        if {"running", "terminated"} & (status.get("state") or {}).keys() or status.get("lastState")
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
    """The log of a container: what its instances write, each line once."""

    client: Client
    pod: PodKey
    container: str
    earlier: Earlier
    say: Say
    prefix: str
    turn: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    last: tuple[str, str] = ("", "")
    """The time of the line that was shown last: whole seconds, and what is below them."""

    async def show(self) -> None:
        """Show what earlier instances wrote, as far as it was not shown, and then the present one's log as it comes."""
        params = {"container": self.container, "timestamps": "true", "follow": "true"}
        async with self.turn:
            await self._show_earlier()  # before the request: the present instance may write nothing for long
            try:
                async with self.client.stream(f"{paths.pod(self.pod)}/log", params) as content:
                    await self._show_lines(_pieces(content))
            except errors.ApiError as error:
                self.say(f"  the log cannot be read: {error}")

    async def _show_lines(self, pieces: AsyncIterable[bytes]) -> None:
        seen, begun = self.last, False
        async for line in _lines(pieces):
            if not begun:
                # The instance that we know of may have ended since, and this be the log of its successor.
                await self._show_earlier()
                seen, begun = self.last, True
            self._show(line, seen)

    async def _show_earlier(self) -> None:
        for pieces in self.earlier(self.pod, self.container):
            seen = self.last
            async with aclosing(pieces):
                with suppress(NotFound):  # it was removed meanwhile
                    async for line in _lines(pieces):
                        self._show(line, seen)

    def _show(self, line: bytes, seen: tuple[str, str]) -> None:
        """Show a line, if it is newer than those that had been `seen` before this log: many lines may have one time."""
        stamp, _, text = line.decode("utf-8", "replace").rstrip("\n").partition(" ")
        whole, _, below = stamp.rstrip("Z").partition(".")
        if (when := (whole, below.ljust(9, "0"))) > seen:
            self.last = when
            self.say(self.prefix + text)


async def _pieces(content: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    while piece := await content.read(LONGEST_LINE):
        yield piece


async def _lines(pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """The lines without their ends; of one that is very long its beginning, and how much there is more."""
    line, length = bytearray(), 0
    async for piece in pieces:
        for number, part in enumerate(piece.split(b"\n")):
            if number:
                yield _shortened(line, length)
                line, length = bytearray(), 0
            line += part[: LONGEST_LINE - len(line)]
            length += len(part)
    if length:
        yield _shortened(line, length)


def _shortened(line: bytearray, length: int) -> bytes:
    more = f" ... ({size(length - len(line))} more)" if length > len(line) else ""
    return bytes(line) + more.encode()


def _waiting(pod: Pod) -> str:
    for which in ("initContainerStatuses", "containerStatuses"):
        for status in pod.status.get(which) or ():
            if (waiting := status.get("state", {}).get("waiting")) and waiting.get("reason") != "PodInitializing":
                return f"{waiting.get('reason', '')}: {waiting.get('message', '')}".rstrip(": ")
    return ""


def _working(pod: Pod) -> str:
    """What the node does for a pod that is on its way, as compiling its module."""
    reason, _, message = _waiting(pod).partition(": ")
    return message if reason == "ContainerCreating" else ""


def _reason(pod: Pod) -> str:
    """What a pod waits for that does not run."""
    return "Unschedulable" if _unscheduled(pod) else _waiting(pod).partition(":")[0]


def _unscheduled(pod: Pod) -> str:
    """Why no node was found for the pod."""
    for condition in pod.status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}{_classless(pod)}"
    return ""


def _classless(pod: Pod) -> str:
    """What to do where a pod goes to no node of wasmlet, which only a RuntimeClass or a toleration has it do."""
    tolerates = any(
        "wasmlet.dev/" in str(item.get("key") or "wasmlet.dev/") for item in pod.spec.get("tolerations") or ()
    )
    if pod.spec.get("runtimeClassName") or tolerates:
        return ""
    return " The pod has no runtimeClassName: `runtimeClassName: wasmlet` in its spec brings it to a wasmlet node."


def why(pod: Pod, what: str) -> str:
    """What went wrong, in the pod's own words."""
    said: list[Any] = [what, _waiting(pod), str(pod.status.get("message", "")), _unscheduled(pod)]
    for status in pod.status.get("containerStatuses") or ():
        if ended := status.get("state", {}).get("terminated"):
            said.append(f"exit code {ended['exitCode']} ({ended.get('reason', '')}) {ended.get('message', '')}".strip())
    return "; ".join(filter(None, said))
