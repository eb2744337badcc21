"""The child: the process of one container. It runs the guest, and ends with the guest's exit code.

It begins as a spare child (`spare`) that knows nothing of any container. Over its control descriptor it tells the shim
(`processes`) that the guest begins (`started`), or why it cannot (`failed`), or the text of a trap (`ended`). It keeps
its three streams, the control descriptor, its mounts and, if it has a network, the control socket to the broker
(`sockets`). It closes everything else.
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

_STARTED = wire.pack({"started": True})

LISTENER_VARIABLES = ("LISTEN_FDS", "LISTEN_FDNAMES")
"""Environment variables that tell a guest how many listeners it has, and their names (sd_listen_fds(3))."""


class Inherited(NamedTuple):
    """The descriptors that a child gets from the shim.

    Attributes:
        arguments: at most one: a file with arguments, which replace those of the spec (for an exec).
        cgroup_fds: descriptors with which an exec joins the control group of its container.
        asking: the control socket to the broker; None if the container has no network.
        namespace: the pod's network namespace; None if it has none.
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
        """Split the list of descriptors, which is in the shim's order; `main` describes the instructions."""
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
    """Run one container in this process.

    Args:
        inherited: the descriptors: spec, compiled module, mounts, the three streams, and what `instructions` names.
        instructions: what the child has to know before it reads the spec.
            `limited`: the control group enforces the memory limit, so the engine need not.
            `arguments` (exec): whether a file with arguments follows the mounts.
            `cgroup_fds` (exec): how many descriptors follow with which it joins its container's control group.
            `sockets`: whether the control socket to the broker follows.
            `namespace`: whether the pod's network namespace follows.
            `datagrams`: see `Confinement.confine_guest`.

    Returns:
        The exit code of the guest.
    """
    own = Inherited.of(inherited, instructions)

    def started() -> None:
        wire.write(control, _STARTED)

    try:
        linux.join_group(own.cgroup_fds)
        wire.close(own.cgroup_fds)
        linux.set_name("wasmlet-guest")
        take_streams(own.streams)
        if os.isatty(1):
            _take_terminal()
        spec = take_spec(own.spec, own.arguments)
        if instructions.get("limited"):
            spec["memory"] = None
        take_network(spec, own.asking)
        mounts = take_mounts(spec, own.mounts)
        if own.namespace is not None:
            # The broker makes its sockets in this namespace anyway. This holds for any socket that might be made here.
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


def take_mounts(spec: dict[str, Any], mounts: Sequence[int]) -> list[tuple[int, bool]]:
    """Put the directory's path into each mount of the spec. Returns descriptors, each with whether it is read-only."""
    known = list(zip(spec.get("mounts") or (), mounts, strict=True))
    for mount, directory in known:
        mount["directory"] = f"/proc/self/fd/{directory}"
    return [(directory, mount["read_only"]) for mount, directory in known]


def take_spec(spec_file: int, arguments: Sequence[int]) -> dict[str, Any]:
    """Read the spec; if there is a file with other arguments, use these. Closes the files."""
    spec = read_spec(spec_file)
    for file in arguments:
        spec["args"] = json.loads(read_file(file))
    wire.close((spec_file, *arguments))
    return spec


def take_network(spec: dict[str, Any], control: int | None) -> None:
    """Put `sockets` (the client of the broker) into the spec; without a control socket the guest has no network.

    An exec has no control socket. So the variables for listeners, which it gets from its container, are removed.
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
    """The `failed` message for the shim: why the guest cannot begin."""
    fault = wire.BAD_ARTIFACT if getattr(error, "bad_artifact", False) else ""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return {"failed": shorten(text), "fault": fault}


def read_spec(descriptor: int) -> dict[str, Any]:
    """The spec in a memory file (see `wire`)."""
    return wire.unpack(read_file(descriptor))


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
    """Shorten a text to 4 KiB: keep its beginning and its end, because a trap's cause comes after the backtrace."""
    if len(text) <= 4000:
        return text
    return f"{text[:2400]}\n...\n{text[-1500:]}"
