"""An exec: a second instance in a running container, with streams that belong to the caller who asked for it.

It is not a container of its own. It has no record and no log. It ends at the latest with its container, or with the
connection that asked for it, and only that connection is told how it ended. It is in the pod's network namespace, but
it has no control socket, so it cannot ask the broker for sockets.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from .. import messages, wire
from ..loop import Loop
from .containers import Container
from .groups import Group
from .processes import Hooks, Process
from .records import Record

STREAMS = 3


def check_descriptors(request: messages.Exec, count: int) -> None:
    """Raises `wire.WireError` where an exec cannot have this many descriptors."""
    if request.command and count != STREAMS + 1:
        raise wire.WireError(f"expected four descriptors (stdin, stdout, stderr, arguments), found {count}")
    if not request.command and not STREAMS + 2 <= count <= STREAMS + 2 + wire.MAX_MOUNTS:
        raise wire.WireError(
            f"expected five descriptors (stdin, stdout, stderr, spec, compiled module) and at most {wire.MAX_MOUNTS} "
            f"more for mounts, found {count}"
        )


class Exec(Process):
    """An exec. It owns the descriptors: its three streams; and spec, compiled module and mounts, or its arguments.

    Args:
        container: what it runs in.
        ended: called with this exec's record once it has ended.
    """

    def __init__(
        self,
        loop: Loop,
        request: messages.Exec,
        container: Container,
        descriptors: Sequence[int],
        ended: Callable[[Record], None],
    ) -> None:
        hooks = Hooks(lambda _: None, lambda _: "the engine's process died before the command began")
        first, second, third, *inherited = descriptors
        if request.command:
            inherited = [*_duplicated(container.inherited), *inherited]
        super().__init__(loop, Record(request.id, {}, "", created=time.time()), inherited, hooks)
        self._streams = first, second, third
        self._has_arguments = request.command
        self._container = container
        self._ended = ended
        container.execs.add(self)

    def _make_streams(self) -> tuple[int, int, int]:
        return self._streams

    def _instructions(self, group: Group | None) -> tuple[wire.Message, tuple[int, ...]]:
        self.group = self._container.group
        network = self._container.network
        namespace = network.open_namespace() if network is not None else ()
        try:
            cgroup_fds = self.group.open_cgroup_fds() if self.group is not None else ()
        except OSError:
            wire.close(namespace)
            raise
        message = {
            "limited": self._container.limited,
            "arguments": self._has_arguments,
            "cgroup_fds": len(cgroup_fds),
            "namespace": bool(namespace),
        }
        return message, (*cgroup_fds, *namespace)

    def _conclude(self) -> None:
        self._container.exec_ended(self)
        self._ended(self.record)


def _duplicated(descriptors: Sequence[int]) -> list[int]:
    made: list[int] = []
    try:
        for descriptor in descriptors:
            made.append(os.dup(descriptor))
    except OSError:
        wire.close(made)
        raise
    return made
