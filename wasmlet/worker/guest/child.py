"""The child: what a container is. It becomes the guest and ends with the guest's exit code.

It was a spare child until now (`spare`), which knew nothing of any container. It says over its control descriptor when
the guest begins (`started`), or why it cannot (`failed`), and after a trap the trap's text (`ended`); the shim
(`processes`) listens. It keeps its three streams, that descriptor, its mounts, where it has a network the control
socket by which it asks for sockets (`sockets`), and nothing else.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import termios
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import linux, wire
from .confine import Confinement
from .engines import Engine
from .sockets import Sockets

LISTENER_VARIABLES = ("LISTEN_FDS", "LISTEN_FDNAMES")
"""Of a guest: how many listeners it has, and how they are called (sd_listen_fds(3))."""


class Inherited(NamedTuple):
    """The descriptors that a container is made of.

    Attributes:
        arguments: a file with its arguments, which come in place of those of the spec; or none.
        cgroup_fds: those by which an exec joins its container's group.
        asking: its control socket for the broker; None where it has no network.
        namespace: its pod's network namespace; None where that has none.
    """

    spec: int
    module: int
    mounts: Sequence[int]
    streams: tuple[int, int, int]
    arguments: Sequence[int]
    cgroup_fds: Sequence[int]
    asking: int | None
    namespace: int | None

    @classmethod
    def of(cls, descriptors: Sequence[int], instructions: wire.Message) -> Inherited:
        """In the order in which the shim gives them; see `main` for the instructions."""
        rest = list(descriptors)
        namespace = rest.pop() if instructions.get("namespace") else None
        asking = rest.pop() if instructions.get("sockets") else None
        count = len(rest) - instructions.get("cgroup_fds", 0)
        spec, module, *mounts, stdin, stdout, stderr = rest[:count]
        arguments = [mounts.pop()] if instructions.get("arguments") else []
        return cls(spec, module, mounts, (stdin, stdout, stderr), arguments, rest[count:], asking, namespace)


def main(
    control: socket.socket,
    engine: Engine,
    prepared: object,
    confinement: Confinement,
    instructions: wire.Message,
    inherited: Sequence[int],
) -> int:
    """Run one container in this process, made of `inherited`: spec, compiled module, mounts, and the three streams.

    Args:
        instructions: what it becomes: `limited` where its control group holds the limit of memory, so that the engine
            need not; for an exec `cgroup_fds`: how many of `inherited`, at its end, are those by which it joins its
            container's group, and `arguments`: whether there is a file behind its mounts with its arguments; and where
            the pod has a network `sockets`: whether there is a control socket behind all that, `namespace`: whether
            there is the pod's network namespace behind that, and `datagrams` (see `Confinement.confine_guest`).

    Returns:
        Its exit code.
    """
    own = Inherited.of(inherited, instructions)

    def started() -> None:
        wire.write(control, wire.pack({"started": True}))

    try:
        linux.join_group(own.cgroup_fds)
        wire.close(own.cgroup_fds)
        linux.set_name("wasmlet-guest")
        take_streams(own.streams)
        if os.isatty(1):
            _take_terminal()
        spec = _take_spec(own.spec, own.arguments)
        if instructions.get("limited"):
            spec["memory"] = None
        take_network(spec, own.asking)
        mounts = _take_mounts(spec, own.mounts)
        if own.namespace is not None:
            # Its sockets are in there anyway. Whatever else might come to make one is in there as well.
            linux.enter_network(own.namespace)
            os.close(own.namespace)
        needs, datagrams = getattr(engine, "REQUIRES", ()), bool(instructions.get("datagrams"))
        confinement.confine_guest(own.module, mounts, spec.get("user"), needs, datagrams=datagrams)
        code, message = engine.run(prepared, spec, f"/proc/self/fd/{own.module}", started)
    except BaseException as error:
        wire.write(control, wire.pack(failure(error)))
        return wire.START_ERROR_CODE
    if message:
        wire.write(control, wire.pack({"ended": shorten(message)}))
    return int(code)


def _take_mounts(spec: dict[str, Any], mounts: Sequence[int]) -> list[tuple[int, bool]]:
    """Tell the spec's mounts where their directories are; each descriptor, and whether it is to be read only."""
    known = list(zip(spec.get("mounts") or (), mounts, strict=True))
    for mount, directory in known:
        mount["directory"] = f"/proc/self/fd/{directory}"
    return [(directory, mount["read_only"]) for mount, directory in known]


def _take_spec(spec_file: int, arguments: Sequence[int]) -> dict[str, Any]:
    """The spec, with the arguments of another file where there is one; closes these files."""
    spec = read_spec(spec_file)
    for file in arguments:
        spec["args"] = json.loads(read_file(file))
    wire.close((spec_file, *arguments))
    return spec


def take_network(spec: dict[str, Any], control: int | None) -> None:
    """Put `sockets` into the spec of a container with this control socket; without one it has no network.

    An exec in a container has none, and so no listeners, though it gets the container's variables.
    """
    network = spec.pop("network", None)
    if control is not None:
        spec["network"] = network or {}
        spec["sockets"] = Sockets(control, spec["network"])
    elif network is not None:
        spec["env"] = [(name, value) for name, value in spec["env"] if name not in LISTENER_VARIABLES]


def take_streams(streams: Sequence[int]) -> None:
    """Make these the process's stdin, stdout and stderr."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)


def _take_terminal() -> None:
    """Make the terminal this process's own, so that Ctrl-C at it ends the guest."""
    os.setsid()
    fcntl.ioctl(1, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def failure(error: BaseException) -> dict[str, Any]:
    """The message about a guest that cannot begin."""
    fault = wire.BAD_ARTIFACT if getattr(error, "bad_artifact", False) else ""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return {"failed": shorten(text), "fault": fault}


def read_spec(descriptor: int) -> dict[str, Any]:
    """The spec in a memory file (see `wire`)."""
    spec = json.loads(read_file(descriptor))
    assert isinstance(spec, dict)
    return spec


def read_file(descriptor: int) -> bytes:
    """All of a memory file."""
    return b"".join(iter_pread(descriptor, os.fstat(descriptor).st_size))


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


def shorten(text: str) -> str:
    """At most 4 KiB of a text: its beginning and its end, since a trap's cause comes after its backtrace."""
    if len(text) <= 4000:
        return text
    return f"{text[:2400]}\n...\n{text[-1500:]}"
