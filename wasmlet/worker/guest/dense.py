"""The dense worker: one process that runs many containers of one namespace, each on a thread of its own.

It begins as a spare child (`spare`). Over its control descriptor, the shim sends it one container after another, each
with its descriptors, and says which containers are to end. The worker never uses what belongs to one container for
another. But all share its memory, so a bug of the engine that one guest exploits affects all of them. The worker ends
when the shim closes the control descriptor, or dies. The shim's side is `workers`.

Messages from the shim:
- `run`: an id, and whether there is a control socket (`sockets`). Descriptors: stdout, stderr, spec, compiled module,
  mounts, control socket.
- `stop`: an id.

Messages to the shim, each with the container's `id`:
- `started`: with the thread, and the address of the guest's memory.
- `failed`: as a child sends it.
- `over`: with `code`, `message`, and whether the guest was `interrupted`.

`engines.DenseEngine` lists what an engine needs for this in addition.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import gc
import os
import resource
import socket
from collections.abc import Callable, Sequence
from typing import Any

from .. import linux, wire
from . import child
from .confine import Confinement
from .engines import DenseEngine, DenseGuest

_ARENA_MAX = -8
"""An option of mallopt(3), set to limit the heaps: by default threads get heaps of their own, which takes memory."""
_STREAMS, _FIXED = 2, 4
"""Numbers of descriptors of a container: 2 streams, and 4 with spec and compiled module; the mounts follow them."""
_KEPT_CODES = 64
"""How many loaded modules are kept, even while no container runs them."""
_KEPT_STOPS = 2000
"""How many containers are remembered to have been asked to end, more than there are at a time."""
_STARTED = '{"id":"%s","started":%d,"memory":%d}'
_LISTENERS = 2
"""How many threads wait for messages: one is left while the other takes over a container."""


def main(
    control: socket.socket,
    engine: DenseEngine,
    prepared: object,
    confinement: Confinement,
    instructions: wire.Message,
    inherited: Sequence[int],
) -> int:
    """Run as a dense worker, until the shim closes the control descriptor.

    Args:
        inherited: descriptors: the three streams, and the directories that its containers may open.
        instructions: `readable`: how many of these directories, at the end of the list, are read-only.

    Returns:
        The exit code of this process.
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


def _nothing(prepared: object) -> None:
    pass


class _Worker:
    """The containers of this process.

    A few threads wait for messages. One that gets a container runs it, and ends with it: from the message to the guest,
    no thread waits for another one. The main thread does what a start need not wait for: it starts other threads that
    wait for messages.
    """

    def __init__(self, control: socket.socket, engine: DenseEngine, prepared: object) -> None:
        self._control = control
        self._engine = engine
        self._prepared = prepared
        self._stock: Callable[[object], None] = getattr(engine, "stock", _nothing)
        self._guests: dict[str, DenseGuest | None] = {}
        self._stopped: dict[str, None] = {}
        """Containers that were asked to end before they had a guest, perhaps before the message with them was read."""
        self._lock = _thread.allocate_lock()
        self._codes: dict[tuple[int, ...], Any] = {}
        self._listening = 0
        """How many threads wait for messages, or are about to."""
        self._bell = _thread.allocate_lock()
        """Held while there is nothing to do for the main thread."""
        self._over = False

    def serve(self) -> None:
        """Handle the shim's messages until it closes the control descriptor."""
        self._bell.acquire()
        while not self._over:
            with contextlib.suppress(RuntimeError):  # no room for a thread: a container may have to wait for it
                while self._listening < _LISTENERS:
                    self._add_listener()
            self._stock(self._prepared)
            self._bell.acquire()

    def _ring(self) -> None:
        """Have the main thread look what there is to do."""
        with self._lock:
            if self._bell.locked():
                self._bell.release()

    def _add_listener(self) -> None:
        """Start a thread that waits for messages.

        Raises:
            RuntimeError: there is no room for one.
        """
        with self._lock:
            self._listening += 1
        try:
            _thread.start_new_thread(self._listen, ())
        except RuntimeError:
            with self._lock:
                self._listening -= 1
            raise

    def _listen(self) -> None:
        """Handle messages until one has a container, and run that; called on a thread of its own."""
        given = None
        with contextlib.suppress(BaseException):  # the shim is gone, or breaks the rules
            given = self._next()
        if given is not None:
            self._run(*given)
        else:
            self._over = True
            self._ring()

    def _next(self) -> tuple[str, list[int], int | None] | None:
        """Handle messages until one has a container, which is then this thread's; None where no message will come."""
        while True:
            try:
                received = wire.receive(self._control)
            except wire.LostDescriptors as lost:  # a guest has opened all that this process may have
                self._tell_shim(str(lost.message.get("run")), failed="the worker has no room for more descriptors")
                continue
            if received is None:
                return None
            message, descriptors = received
            if "run" in message and len(descriptors) >= _FIXED:
                name, asking = message["run"], descriptors.pop() if message.get("sockets") else None
                if self._takes(name, descriptors, asking):
                    return name, descriptors, asking
                continue
            wire.close(descriptors)
            if "stop" in message:
                self._stop(message["stop"])

    def _takes(self, name: str, descriptors: list[int], asking: int | None) -> bool:
        """Have this thread run a container, whose guest may take its time; False where nobody could listen then."""
        with self._lock:
            self._guests[name] = None
            self._listening -= 1
            last = not self._listening
        if last:
            try:
                self._add_listener()
            except RuntimeError as error:
                with self._lock:
                    self._listening += 1
                    del self._guests[name]
                    self._stopped.pop(name, None)
                wire.close(descriptors if asking is None else (*descriptors, asking))
                self._tell_shim(name, failed=f"the worker has no room for another thread: {error}")
                return False
        return True

    def _stop(self, name: str) -> None:
        with self._lock:
            guest = self._guests.get(name)
            if guest is None:
                # The thread that has read the message with this container may be about to say so. Where the container
                # has ended just now instead, its name stays here for a while.
                self._stopped[name] = None
                if len(self._stopped) > _KEPT_STOPS and name not in self._guests:
                    del self._stopped[next(name for name in self._stopped if name not in self._guests)]
        if guest is not None:
            guest.interrupt()

    def _run(self, name: str, descriptors: list[int], asking: int | None) -> None:
        """Run one container."""
        spec: dict[str, Any] = {}
        try:
            guest = self._make_guest(name, descriptors, asking, spec)
            del descriptors

            def started(address: int) -> None:
                wire.write(self._control, (_STARTED % (name, _thread.get_native_id(), address)).encode())
                self._ring()

            code, message, interrupted = guest.run(started)
            said = {"over": True, "code": code, "message": child.shorten(message), "interrupted": interrupted}
        except BaseException as error:
            said = child.failure(error)
        if "sockets" in spec:
            spec["sockets"].close()
        with self._lock:
            del self._guests[name]
            self._stopped.pop(name, None)
        with contextlib.suppress(OSError):  # the shim is gone, and this process ends soon
            self._tell_shim(name, **said)
        if self._listening < _LISTENERS:  # its guest has not begun, or there was no room for a thread
            self._ring()

    def _make_guest(self, name: str, descriptors: list[int], asking: int | None, spec: dict[str, Any]) -> DenseGuest:
        """Make the guest. Its engine opens the files again, so the descriptors can be closed after that.

        Args:
            asking: the control socket to the broker, which is put into the spec.
            spec: an empty dict; it is filled with the spec.
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
        """Load the compiled module of a file, or find it among the loaded ones. Such files never change."""
        found = os.fstat(module)
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        with self._lock:
            if key in self._codes:
                code = self._codes.pop(key)
            else:
                code = self._engine.load(self._prepared, f"/proc/self/fd/{module}")
            self._codes[key] = code  # the least recently used one is dropped first; guests keep theirs
            if len(self._codes) > _KEPT_CODES:
                del self._codes[next(iter(self._codes))]
        return code

    def _tell_shim(self, name: str, **said: Any) -> None:
        wire.write(self._control, wire.pack({"id": name, **said}))
