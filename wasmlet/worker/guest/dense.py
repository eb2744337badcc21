"""The dense worker: one process in which many containers of one namespace run, each on a thread of its own.

Made of a spare child (`spare`), it takes one container after another over its control descriptor, each with its
descriptors, and is told by the same way which are to end. It never looks at what one container was given on behalf of
another, but they share its memory: a bug of the engine's in one guest is in all of them. It ends when the shim closes
the control descriptor, or dies. The other end is `workers`.

What the shim says: `run` (an id; descriptors: stdout, stderr, spec, compiled module, mounts, and with `sockets` a
control socket), `stop` (an id). What is said of a container, by its `id`: `started` with the thread and the address of
its memory, `failed` as a child says it, and `over` with `code`, `message`, and whether it was `interrupted`.

What it asks of an engine beyond what all have is `engines.DenseEngine`.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import gc
import os
import resource
import socket
from collections.abc import Sequence
from typing import Any

from .. import linux, wire
from . import child
from .confine import Confinement
from .engines import DenseEngine, DenseGuest

_ARENA_MAX = -8
"""mallopt(3): without it each thread takes memory from a heap of its own."""
_STREAMS, _FIXED = 2, 4
"""Descriptors of a container: stdout and stderr, and these with spec and compiled module; after them its mounts."""
_KEPT_CODES = 64
"""Compiled modules that are kept while no container runs them."""


def main(
    control: socket.socket,
    engine: DenseEngine,
    prepared: object,
    confinement: Confinement,
    instructions: wire.Message,
    inherited: Sequence[int],
) -> int:
    """Run as a worker, made of `inherited`: the three streams, and the directories with all files of its containers.

    Args:
        instructions: what it becomes: `readable`, how many of these directories, at the end, are to be read only.

    Returns:
        Its exit code, when the shim closes the control descriptor.
    """
    linux.set_name("wasmlet-dense")
    child.take_streams(inherited[:3])
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (hard, hard))
    ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)
    gc.enable()
    _thread.stack_size(engine.STACK)
    first = len(inherited) - instructions["readable"]
    confinement.confine_worker((directory, number >= first) for number, directory in enumerate(inherited) if number > 2)
    wire.close(inherited[3:])
    _Worker(control, engine, prepared).serve()
    return 0


class _Worker:
    """The containers of this process."""

    def __init__(self, control: socket.socket, engine: DenseEngine, prepared: object) -> None:
        self._control = control
        self._engine = engine
        self._prepared = prepared
        self._guests: dict[str, DenseGuest | None] = {}
        self._stopped: set[str] = set()
        """Asked to end before there is a guest."""
        self._lock = _thread.allocate_lock()
        self._codes: dict[tuple[int, ...], Any] = {}

    def serve(self) -> None:
        """Do what the shim says, until it closes the control descriptor."""
        while (received := wire.receive(self._control)) is not None:
            message, descriptors = received
            if "run" in message and len(descriptors) >= _FIXED:
                asking = descriptors.pop() if message.get("sockets") else None
                self._begin(message["run"], descriptors, asking)
                continue
            wire.close(descriptors)
            if "stop" in message:
                self._stop(message["stop"])

    def _begin(self, name: str, descriptors: list[int], asking: int | None) -> None:
        try:
            self._guests[name] = None
            _thread.start_new_thread(self._run, (name, descriptors, asking))
        except RuntimeError as error:
            del self._guests[name]
            wire.close(descriptors if asking is None else (*descriptors, asking))
            self._tell_shim(name, failed=f"the worker has no room for another thread: {error}")

    def _stop(self, name: str) -> None:
        with self._lock:
            guest = self._guests.get(name)
            if guest is None and name in self._guests:
                self._stopped.add(name)
        if guest is not None:
            guest.interrupt()

    def _run(self, name: str, descriptors: list[int], asking: int | None) -> None:
        """A container, on its own thread."""
        spec: dict[str, Any] = {}
        try:
            guest = self._make_guest(name, descriptors, asking, spec)
            del descriptors

            def started(address: int) -> None:
                self._tell_shim(name, started=_thread.get_native_id(), memory=address)

            code, message, interrupted = guest.run(started)
            said = {"over": True, "code": code, "message": child.shorten(message), "interrupted": interrupted}
        except BaseException as error:
            said = child.failure(error)
        if "sockets" in spec:
            spec["sockets"].close()
        with self._lock:
            del self._guests[name]
            self._stopped.discard(name)
        with contextlib.suppress(OSError):  # the shim is gone, and this process ends soon
            self._tell_shim(name, **said)

    def _make_guest(self, name: str, descriptors: list[int], asking: int | None, spec: dict[str, Any]) -> DenseGuest:
        """The guest. What it needs of the descriptors is open anew by its engine before they are closed.

        Args:
            asking: its control socket; it goes into the spec.
            spec: empty; gets what is read.
        """
        try:
            stdout, stderr, spec_file, module, *mounts = descriptors
            spec.update(child.read_spec(spec_file))
            child.take_network(spec, asking)
            for mount, descriptor in zip(spec.get("mounts") or (), mounts):  # noqa: B905 - new in Python 3.10
                mount["directory"] = f"/proc/self/fd/{descriptor}"
            paths = [f"/proc/self/fd/{stream}" for stream in (stdout, stderr)]
            guest = self._engine.Guest(self._prepared, self._code(module), spec, *paths)
        finally:
            wire.close(descriptors if asking is None or "sockets" in spec else (*descriptors, asking))
        with self._lock:
            self._guests[name] = guest
            stopped = name in self._stopped
        if stopped:
            guest.interrupt()
        return guest

    def _code(self, module: int) -> Any:
        """The compiled module in this file, which is never written again once it is there."""
        found = os.fstat(module)
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        with self._lock:
            if key in self._codes:
                code = self._codes.pop(key)
            else:
                code = self._engine.load(self._prepared, f"/proc/self/fd/{module}")
            self._codes[key] = code  # the one that was used last is dropped last; guests keep theirs
            if len(self._codes) > _KEPT_CODES:
                del self._codes[next(iter(self._codes))]
        return code

    def _tell_shim(self, name: str, **said: Any) -> None:
        wire.write(self._control, wire.pack({"id": name, **said}))
