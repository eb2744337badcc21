"""The child: what a container is. Forked by the zygote, it becomes the guest and ends with the guest's exit code.

It speaks over its control descriptor: its pid first, then `started`, or `failed` with a text, and after a trap `ended`
with the trap's text. The shim (`containers`) listens. It keeps its three streams, that descriptor, its mounts and
nothing else.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import termios
from types import ModuleType
from typing import Any

from . import linux, wire

DESCRIPTORS = 6
"""Control, stdin, stdout, stderr, spec, compiled module; after these as many mounts as there are."""

TRAPPED = 134
"""Exit code of a guest that trapped, that of abort(): 128 + SIGABRT."""

_CONTROL, _SPEC, _MODULE, _MOUNTS = 3, 4, 5, 6


def main(shim: int, between: int, engine: ModuleType, prepared: object, descriptors: list[int]) -> None:
    """Run the container in this process. Never returns, whatever happens."""
    code = wire.START_ERROR_CODE
    try:
        belong_to(shim, between)
        linux.set_name("wasmlet-guest")
        control = take(descriptors)
        wire.send(control, wire.pack({"pid": os.getpid()}))
        code = _run(control, engine, prepared)
    except BaseException:  # the shim is gone or has given up on this container
        pass
    finally:
        os._exit(code & 0xFF)


def belong_to(shim: int, between: int) -> None:
    """Wait until this orphan has gone to the shim, and end when the shim ends: nobody else could tell its end."""
    while os.getppid() == between:
        try:
            watch = os.pidfd_open(between)
        except OSError:  # it has just ended, or the kernel has no such call
            os.sched_yield()
            continue
        select.select([watch], [], [])
        os.close(watch)
    linux.die_with_parent(signal.SIGKILL)
    if os.getppid() != shim:
        os._exit(wire.START_ERROR_CODE)


def take(descriptors: list[int]) -> socket.socket:
    """Put the descriptors where they belong and close every other one, the zygote's own among them."""
    # First out of the way of the numbers below, then to them.
    control, *others = (_above(descriptor, 16 + len(descriptors)) for descriptor in descriptors)
    for number, descriptor in enumerate((*others[:_CONTROL], control, *others[_CONTROL:])):
        os.dup2(descriptor, number, inheritable=number < _CONTROL)
    wire.close_from(len(descriptors))
    if os.isatty(1):
        _take_terminal()
    return socket.socket(fileno=_CONTROL)


def _take_terminal() -> None:
    """Make the terminal this process's own, so that Ctrl-C at it ends the guest."""
    os.setsid()
    fcntl.ioctl(1, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def _above(descriptor: int, floor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, floor)


def _run(control: socket.socket, engine: ModuleType, prepared: object) -> int:
    def started() -> None:
        wire.send(control, wire.pack({"started": True}))

    try:
        spec = read_spec(_SPEC)
        os.close(_SPEC)
        for number, mount in enumerate(spec.get("mounts") or (), _MOUNTS):
            mount["directory"] = f"/proc/self/fd/{number}"
        if user := spec.get("user"):
            linux.become(user["uid"], user["gid"], user["groups"])
            # The kernel drops this when a process becomes another user.
            linux.die_with_parent(signal.SIGKILL)
        code, message = engine.run(prepared, spec, f"/proc/self/fd/{_MODULE}", started)
    except BaseException as error:
        wire.send(control, wire.pack(failure(error)))
        return wire.START_ERROR_CODE
    if message:
        wire.send(control, wire.pack({"ended": cut(message)}))
    return int(code)


def failure(error: BaseException) -> dict[str, Any]:
    """What is said of a guest that cannot begin."""
    fault = wire.BAD_ARTIFACT if getattr(error, "bad_artifact", False) else ""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return {"failed": cut(text), "fault": fault}


def read_spec(descriptor: int) -> dict[str, Any]:
    """The spec in a memory file (see `wire`)."""
    spec = json.loads(b"".join(iter_pread(descriptor, os.fstat(descriptor).st_size)))
    assert isinstance(spec, dict)
    return spec


def iter_pread(descriptor: int, size: int) -> list[bytes]:
    """The file's content from its start, whatever the descriptor's position."""
    pieces, offset = [], 0
    while offset < size:
        piece = os.pread(descriptor, size - offset, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
    return pieces


def report_failure(descriptors: list[int], text: str) -> None:
    """Tell the shim that no child can be made."""
    with socket.socket(fileno=os.dup(descriptors[0])) as control:
        wire.send(control, wire.pack({"failed": text}))


def cut(text: str) -> str:
    """At most 4 KiB of a text: its beginning and its end, since a trap's cause comes after its backtrace."""
    if len(text) <= 4000:
        return text
    return f"{text[:2400]}\n...\n{text[-1500:]}"
