"""An exec: a second instance in a running container, with streams that belong to whoever asked for it.

It is no container of its own: nothing of it is recorded, its output is in no log, it ends at the latest with its
container or with the connection that asked for it, and how it ended is told to that connection only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .. import wire
from .containers import Container
from .groups import Group
from .loop import Loop
from .processes import Hooks, Process
from .records import Record


class Exec(Process):
    """Takes over the descriptors: its three streams, spec, compiled module, mounts.

    Args:
        container: what it runs in.
        ended: called with this exec's record once it has ended.
    """

    def __init__(
        self,
        loop: Loop,
        name: str,
        container: Container,
        descriptors: Sequence[int],
        ended: Callable[[Record], None],
    ) -> None:
        hooks = Hooks(lambda _: None, lambda _: "the engine's process died before the command began")
        super().__init__(loop, Record(name, {}, "", created=time.time()), descriptors[3:], hooks)
        first, second, third = descriptors[:3]
        self._streams = first, second, third
        self._container = container
        self._ended = ended
        container.execs.add(self)

    def _make_streams(self) -> tuple[int, int, int]:
        return self._streams

    def _instructions(self, group: Group | None) -> tuple[wire.Message, tuple[int, ...]]:
        self.group = self._container.group
        cgroup_fds = self.group.open_cgroup_fds() if self.group is not None else ()
        return {"limited": self._container.limited, "cgroup_fds": len(cgroup_fds)}, cgroup_fds

    def _conclude(self) -> None:
        self._container.exec_ended(self)
        self._ended(self.record)
