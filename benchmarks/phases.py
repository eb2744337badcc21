"""Marks the borders of pods' phases in the process of a node, and counts what happens between them.

`install` wraps some functions of wasmlet from outside, in a benchmark's own node, so no other node pays for it. At each
border it takes down the time, the CPU that the node's process and the shim have used, and how much has been counted so
far. For each pod that is gone it writes one line of JSON to a file; `read` reads them. The wrappers themselves take
some microseconds of the node's CPU for each border.
"""

from __future__ import annotations

import functools
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import orjson

SEEN, CREATE, IMAGE, START, STARTED, RUNNING = "seen", "create", "image", "start", "started", "running"
DELETING, ENDED, GONE = "deleting", "ended", "gone"
BORDERS = (SEEN, CREATE, IMAGE, START, STARTED, RUNNING, DELETING, ENDED, GONE)
"""In the order in which a pod passes them:

- `SEEN`: the watch has the pod; `CREATE`: the provider is given it.
- `IMAGE`: its volumes and its network are there, and the image is asked for.
- `START`: all is at hand, and the shim is asked; `STARTED`: the shim says that the guest has begun.
- `RUNNING`: the API server has answered the write of that status.
- `DELETING`: the watch says that the pod is to end; `ENDED`: the shim says that the container has ended.
- `GONE`: the pod is removed here and from the API server.
"""


@attrs.frozen
class Mark:
    """A border that a pod has passed.

    Attributes:
        at: when, in seconds since 1970.
        node, shim: CPU that the process has used so far, seconds.
        counts: how often each thing has happened so far in the node's process: requests, messages, hand-overs.
    """

    at: float
    node: float
    shim: float
    counts: Mapping[str, int]


Marks = Mapping[str, Mark]
"""By border."""


def read(path: Path) -> list[Marks]:
    """What `install` has had written there, in the order in which the pods were gone."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [{name: Mark(**mark) for name, mark in orjson.loads(line).items()} for line in lines]


class _Recorder:
    """Takes down the marks of pods, by UID."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._pods: dict[str, dict[str, Mark]] = {}
        self.counts = Counter[str]()
        self.shim = 0
        """The shim's process id."""

    def mark(self, uid: str, border: str) -> None:
        marks = self._pods.setdefault(uid, {})
        if border not in marks:
            shim = 0.0
            with suppress(OSError):
                shim = time.clock_gettime((~self.shim << 3) | 2)
            marks[border] = Mark(time.time(), time.process_time(), shim, dict(self.counts))

    def gone(self, uid: str) -> None:
        self.mark(uid, GONE)
        marks = self._pods.pop(uid)
        os.write(self._file, orjson.dumps({name: attrs.asdict(mark) for name, mark in marks.items()}) + b"\n")


def install(path: Path) -> None:
    """Have the borders marked of all pods of the node that is started next in this process, on the running loop."""
    recorder = _Recorder(path)
    _mark_borders(recorder)
    _count_requests(recorder.counts)
    _count_messages(recorder.counts)
    _count_hand_overs(recorder.counts)


def _mark_borders(recorder: _Recorder) -> None:
    from wasmlet.kube.client import Client
    from wasmlet.node.pods.manager import PodManager
    from wasmlet.node.pods.pod_task import PodTask
    from wasmlet.runtime.pods import launch
    from wasmlet.runtime.pods.container import ContainerLife
    from wasmlet.runtime.provider import RuntimeProvider
    from wasmlet.runtime.shim.connection import ShimConnection

    def applied(_: PodManager, item: Mapping[str, Any]) -> None:
        metadata = item["metadata"]
        recorder.mark(metadata["uid"], DELETING if "deletionTimestamp" in metadata else SEEN)

    def saw(_: ContainerLife, record: Any, labels: Any) -> None:
        if record.ended:
            recorder.mark(labels.pod.uid, ENDED)

    def patched(path: str, body: Any) -> None:
        if path.endswith("/status") and body.get("status", {}).get("phase") == "Running":
            recorder.mark(body["metadata"]["uid"], RUNNING)

    def has_shim(connection: ShimConnection) -> None:
        recorder.shim = connection.pid

    _before(PodManager, "applied", applied)
    _before(RuntimeProvider, "create_pod", lambda _, pod, *__: recorder.mark(pod.uid, CREATE))
    _before(launch, "ensure_images", lambda needs, *_: recorder.mark(needs.manifest.uid, IMAGE))
    _before(launch, "carry_out", lambda ready, *_: recorder.mark(ready.plan.labels.pod.uid, START))
    _after(launch, "carry_out", lambda ready, *_: recorder.mark(ready.plan.labels.pod.uid, STARTED))
    _after(Client, "patch", lambda _, path, body, *__: patched(path, body))
    _before(ContainerLife, "saw", saw)
    _before(PodTask, "over", lambda task: recorder.gone(task.key.uid))
    _after(ShimConnection, "start", has_shim)


def _before(where: Any, name: str, work: Callable[..., None]) -> None:
    """Have `work` done before each call of a function, with the same arguments."""
    original = getattr(where, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        work(*args)
        return original(*args, **kwargs)

    setattr(where, name, wrapped)


def _after(where: Any, name: str, work: Callable[..., None]) -> None:
    """Have `work` done after each call of a coroutine function, with the same arguments."""
    original: Callable[..., Coroutine[Any, Any, Any]] = getattr(where, name)

    @functools.wraps(original)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = await original(*args, **kwargs)
        work(*args)
        return result

    setattr(where, name, wrapped)


def _count_requests(counts: Counter[str]) -> None:
    from wasmlet.kube.pool import Pool

    def count(verb: str, target: bytes) -> None:
        counts[f"API request: {verb} {kind_of(target.decode().partition('?')[0])}"] += 1

    _before(Pool, "ask", lambda _, method, target, *__: count(method, target))
    _before(Pool, "stream", lambda _, target, *__: count("WATCH", target))


def kind_of(path: str) -> str:
    """What a request is about: `pods/status` for `/api/v1/namespaces/default/pods/web/status`."""
    parts = path.strip("/").split("/")
    parts = parts[2 if parts[0] == "api" else 3 :]
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    return "/".join([*parts[:1], *parts[2:3]]) or path


def _count_messages(counts: Counter[str]) -> None:
    """Count what the node's process sends to the shim and gets from it."""
    from wasmlet.worker import wire

    asked: dict[int, str] = {}
    send, receive = wire.send, wire.receive

    def sending(sock: Any, data: bytes, descriptors: tuple[int, ...] = ()) -> None:
        send(sock, data, descriptors)
        message = wire.unpack(data)
        operation = asked[message["n"]] = str(message["op"])
        counts[f"message to the shim: {operation}"] += 1

    def receiving(
        sock: socket.socket, unpack: Callable[[bytes], wire.Message] = wire.unpack
    ) -> tuple[wire.Message, list[int]] | None:
        received = receive(sock, unpack)
        if received is not None:
            message = received[0]
            said = []
            if message.get("event") == "container":
                said.append(f"container {message['container'].get('state')}")
            if "re" in message:
                said.append(f"answer to {asked.get(message['re'], 'nothing')}")
            counts[f"message from the shim: {', '.join(said)}"] += 1
        return received

    wire.send, wire.receive = sending, receiving


def _count_hand_overs(counts: Counter[str]) -> None:
    """Count what the event loop hands over to threads, by the name of the function."""
    import asyncio

    def count(_: asyncio.AbstractEventLoop, __: object, work: Any, *___: object) -> None:
        if isinstance(work, functools.partial) and work.args:  # `in_thread` and `to_thread`: context.run(work, ...)
            work = work.args[0]
        counts[f"handed to a thread: {getattr(work, '__qualname__', type(work).__name__)}"] += 1

    _before(type(asyncio.get_running_loop()), "run_in_executor", count)
