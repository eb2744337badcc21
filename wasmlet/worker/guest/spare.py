"""A spare child: the zygote forks it before it is needed, and it waits until the shim says what it becomes.

First it does all the preparation that does not depend on a container (`_get_ready`), so that a start need not wait for
that. Then the shim sends it, over its control descriptor, everything that a container consists of (`child`), or tells
it to become a dense worker (`dense`). The zygote never sees this. A spare child that nobody needs ends when the control
descriptor is closed; it has then never known any container. Its first message is its pid. The shim's side is `zygotes`.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from .. import linux, wire
from . import child, dense
from .confine import Confinement
from .engines import DenseEngine, Engine

CONTROL = 3
"""The number of the control descriptor."""
_READY = b'{"pid":%d}'
"""A child's first message."""
_KILL = int(signal.SIGKILL)
_WARM_UPS = 16
_WARM_MILLISECONDS, _AWAITED_MILLISECONDS = 5, 200
"""A child that is needed within this time does not warm up first. The second is for one that is waited for already:
where many start at once, it is told later what it becomes, and to warm up would keep the others."""

_NO_DESCRIPTOR = 1 << 30

_arriving = select.poll()
_arriving.register(CONTROL, select.POLLIN)


class Birth(NamedTuple):
    """What each child of a zygote begins with.

    Attributes:
        shim: its pid.
        channel: the zygote's connection to the shim, whose number is `CONTROL`. In a child, the number is that of the
            control descriptor, and so this object is the child's connection.
    """

    shim: int
    channel: socket.socket
    engine: Engine
    prepared: object
    confinement: Confinement


def main(birth: Birth, between: int, descriptors: Sequence[int], *, awaited: bool) -> None:
    """Wait for what this process is to become, then become that. Never returns.

    Args:
        between: pid of this process's parent, which ends soon; 0 where the shim is the parent.
        descriptors: the control descriptor, and those with which it joins its control group.
        awaited: something waits for it already.
    """
    code = wire.START_ERROR_CODE
    try:
        shim, control, engine, prepared, confinement = birth
        _get_ready(control, confinement, descriptors)
        if not _arriving.poll(_AWAITED_MILLISECONDS if awaited else _WARM_MILLISECONDS):
            getattr(engine, "warm", _nothing)(prepared)
        received = wire.receive(control)
        if received is not None:
            message, descriptors = received
            _belong_to(shim, between)
            if "dense" in message:
                code = dense.main(control, cast(DenseEngine, engine), prepared, confinement, message, descriptors)
            else:
                code = child.main(control, engine, prepared, confinement, message, descriptors)
    except BaseException:  # the shim is gone, or does not want this child any more
        pass
    finally:
        os._exit(code & 0xFF)


def _get_ready(
    control: socket.socket, confinement: Confinement, descriptors: Sequence[int], beyond: int = CONTROL
) -> None:
    """Tell the shim that this process is there, and do what it need not wait for.

    Args:
        beyond: descriptors with higher numbers are of the zygote and its other children, and are closed.
    """
    number, *cgroup_fds = descriptors
    try:
        linux.join_group(cgroup_fds)
    except OSError as error:
        report_failure(number, f"cannot join its control group: {error.strerror}")
        raise
    os.dup2(number, CONTROL)
    linux.close_from(beyond + 1)
    confinement.prepare()
    linux.set_name("wasmlet-spare")
    wire.send(control, _READY % os.getpid())


def _nothing(prepared: object) -> None:
    pass


def _belong_to(shim: int, between: int) -> None:
    """Wait until the shim is this process's parent, and from then on end when the shim ends.

    Without the shim nobody could record how this process ends. Before this call, only the control descriptor shows
    that the shim has ended.
    """
    while os.getppid() == between:
        try:
            watch = os.pidfd_open(between)
        except OSError:  # the shim has just ended, or the kernel has no such call
            os.sched_yield()
            continue
        select.select([watch], [], [])
        os.close(watch)
    linux.die_with_parent(_KILL)
    if os.getppid() != shim:
        os._exit(wire.START_ERROR_CODE)


def warm_up(confinement: Confinement) -> None:
    """In the zygote: run the code that every child runs, a few times.

    Python specialises code while it runs, and writes the result to memory. If that happens in the zygote, all children
    share this memory; otherwise each child would have its own copy.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    file = os.memfd_create("warm-up")
    os.write(file, b'{"args":["a"],"env":[["NAME","value"]],"memory":null,"mounts":[],"user":null}')
    with ours, theirs:
        for _ in range(_WARM_UPS):
            _get_ready(ours, confinement, (CONTROL,), beyond=_NO_DESCRIPTOR)
            _belong_to(os.getppid(), 0)
            wire.write(ours, wire.pack({"limited": True}))
            for _ in range(2):
                wire.receive(theirs)
            wire.send(ours, wire.pack({"limited": True}), (file, file, 0, 1, 2))
            received = wire.receive(theirs)
            assert received is not None
            own = child.Inherited.of(received[1], received[0])
            linux.join_group(own.cgroup_fds)
            child.take_streams(own.streams)  # each is this process's own already
            spec = child.take_spec(own.spec, own.arguments)
            child.take_network(spec, own.asking)
            child.take_mounts(spec, own.mounts)
            confinement.warm_up(own.module)
            os.close(own.module)
            _warm_up_sockets()
            linux.set_name("wasmlet-zygote")
    os.close(file)


def _warm_up_sockets() -> None:
    """Run the code with which a child gets a listener from the broker."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        wire.send(ours, wire.pack({"re": 1}), (ours.fileno(),))
        spec: dict[str, Any] = {"env": [], "network": {"addresses": ["127.0.0.1"], "listeners": [{"number": 1}]}}
        child.take_network(spec, theirs.detach())
        sockets = spec["sockets"]
        for descriptors in sockets.open_listeners():
            wire.close(descriptors)
        sockets.close()


def report_failure(control: int, text: str) -> None:
    """Tell the shim that no child can be made."""
    with socket.socket(fileno=os.dup(control)) as sock:
        wire.send(sock, wire.pack({"failed": text}))
