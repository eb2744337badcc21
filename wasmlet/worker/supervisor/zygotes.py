"""The shim's side of zygotes, and of the spare children that they make before these are needed.

A container, an exec or a dense worker gets a spare child that is ready (`children`), or waits for the next one. The
shim asks the zygote for a few children with one message, which has a control descriptor for each. The zygote only
says that it is ready, or why it cannot be. All other messages go directly between shim and child, over the child's
control descriptor: the zygote never sees what makes a child a guest. The processes themselves are `zygote` and `spare`.

A few spare children are kept while they are used. New ones are made `REFILL_SECONDS` after one was taken, so that its
guest starts first. They are ended `IDLE_SECONDS` after the last start. A child runs one guest or none.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable

from .. import linux, wire
from ..log import log_problem
from ..loop import READ, Loop, Timer
from .children import Child, Occupant
from .groups import Groups

ENVIRONMENT = {"LD_BIND_NOW": "1", "MALLOC_ARENA_MAX": "1"}
"""Makes children faster: library functions are resolved in the zygote, and threads do not get heaps of their own."""
SPARE = 3
"""Children kept ready; each has about 1 MiB of its own, kernel memory included."""
REFILL_SECONDS = 0.01
IDLE_SECONDS = 10.0
BATCH = 4
"""How many children are asked for at once. Where the zygote forks twice, none of them begins before all are forked."""
MAKING = 4 * BATCH
"""The most children that are asked for and not ready yet."""
TRIES = 4
"""After how many children in a row that ended before they were ready a waiting container fails."""


class Zygote:
    """A process that forks children for one engine.

    Args:
        python: the interpreter.
        module: path of the engine's in-worker module.
        groups: makes the control group of each child.
        register: told of each child as soon as its pid is known; False where it has been reaped already.
        idle: seconds after the last start for which spare children are kept.
    """

    def __init__(
        self,
        loop: Loop,
        python: str,
        module: str,
        groups: Groups,
        register: Callable[[Child], bool],
        idle: float = IDLE_SECONDS,
    ) -> None:
        self._loop = loop
        self.groups = groups
        self._register = register
        self._idle_seconds = idle
        self._queue: deque[Occupant] = deque()
        self._making: set[Child] = set()
        self._spare: deque[Child] = deque()
        self._refill: Timer | None = None
        self._idle: Timer | None = None
        self._used = 0.0
        self._lost = 0
        self.error = ""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [python, "-I", "-X", "utf8", wire.CODE, "zygote", module]
        try:
            self.pid = os.posix_spawn(
                python,
                command,
                {**linux.kept_environment(), **ENVIRONMENT},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
                setsigmask=(),
                setsigdef=(signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._channel: socket.socket | None = ours
        loop.add(ours, READ, lambda _: self.read_messages())

    @property
    def alive(self) -> bool:
        return self._channel is not None

    @property
    def making(self) -> bool:
        """Whether there may be a child whose pid is not known yet."""
        return bool(self._making)

    def start(self, process: Occupant) -> None:
        """Have it begin in a child, after those that wait already."""
        self._queue.append(process)
        self._assign_children()

    def child_ready(self, child: Child) -> None:
        """The child is ready."""
        self._lost = 0
        self._making.discard(child)
        self._spare.append(child)
        if self._register(child):
            self._assign_children()

    def child_lost(self, child: Child, why: str = "") -> None:
        """The child is gone before it was given to anybody; `why` where it could not be made at all."""
        self.read_messages()  # the zygote itself may be gone; then those that wait need another one
        if child in self._spare:
            self._spare.remove(child)
        elif child in self._making:
            self._making.remove(child)
            self.groups.discard(child.group)
            self._lost += 1
            why = why or ("processes of the engine end before they are ready" if self._lost >= TRIES else "")
            waiting = self._next_waiting()
            if why and waiting is not None:
                self._queue.popleft()
                waiting.fail(why)
        self._assign_children()

    def kill(self) -> None:
        """End the zygote and reap it; its children live on, but for those that nobody has needed."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
        self._close()

    def reaped(self, status: int) -> None:
        """The process has ended with this wait status."""
        self.pid = 0
        self.read_messages()
        if self.error or os.WIFSIGNALED(status):
            log_problem(self.error or f"the engine's process was ended by signal {os.WTERMSIG(status)}")
        self._close()

    def read_messages(self) -> None:
        """Read the messages of the zygote so far; the last one says why it ends."""
        while self._channel is not None:
            try:
                received = wire.receive(self._channel)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # It ended without reading all that we had sent. What it sent before that can still be read.
                continue
            except (wire.WireError, OSError):
                received = None
            if received is None:
                self._close()
                return
            message, descriptors = received
            wire.close(descriptors)
            self.error = str(message.get("error", ""))[:1000] or self.error

    def _next_waiting(self) -> Occupant | None:
        """The first in the queue that still waits; one that was stopped meanwhile is taken out."""
        while self._queue and not self._queue[0].waits:
            self._queue.popleft()
        return self._queue[0] if self._queue else None

    def _assign_children(self) -> None:
        """Give children to those that wait for one, and ask for as many more as are needed."""
        while (process := self._next_waiting()) is not None and self._spare:
            self._used = time.monotonic()
            if process.run_in(self._spare.popleft()):
                self._queue.popleft()
        missing = len(self._queue) - len(self._making)
        # Where one child is missing, more will be wanted soon.
        while missing > 0 and self._request_children(BATCH, awaited=True):
            missing -= BATCH
        if self._used and self.alive and self._refill is None and len(self._spare) < SPARE:
            self._refill = self._loop.later(REFILL_SECONDS, self._refill_now)
        if self._used and self._idle is None:
            self._idle = self._loop.later(self._idle_seconds, self._when_idle)

    def _refill_now(self) -> None:
        self._refill = None
        if self._used:
            self._request_children(SPARE - len(self._spare) - len(self._making), awaited=False)

    def _when_idle(self) -> None:
        """Let the spare children go, unless one was needed since."""
        self._idle = None
        left = self._used + self._idle_seconds - time.monotonic()
        if left > 0:
            self._idle = self._loop.later(left, self._when_idle)
        else:
            self._used = 0.0
            self._release_spares()

    def _request_children(self, count: int, *, awaited: bool) -> bool:
        """Ask for so many children; whether that was possible.

        Args:
            awaited: something waits for them, so they need not prepare themselves more than they must.
        """
        if count <= 0 or self._channel is None or len(self._making) + count > MAKING:
            return False
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
        made = [self.groups.make() for _ in pairs]
        cgroup_fds = [group.cgroup_fds if group is not None else () for group in made]
        descriptors = [number for (_, theirs), own in zip(pairs, cgroup_fds) for number in (theirs.fileno(), *own)]  # noqa: B905
        message = {"cgroup_fds": [len(own) for own in cgroup_fds], "awaited": awaited}
        try:
            wire.send(self._channel, wire.pack(message), tuple(descriptors))
        except OSError as error:
            for (ours, _), group in zip(pairs, made):  # noqa: B905 - new in Python 3.10
                ours.close()
                self.groups.discard(group)
            if not isinstance(error, BlockingIOError):
                self.read_messages()  # they say why it is gone
                self._close()
            return False
        finally:
            for _, theirs in pairs:
                theirs.close()
            for group in filter(None, made):
                group.close_cgroup_fds()
        self._making.update(
            Child(self._loop, self, ours, group)
            for (ours, _), group in zip(pairs, made)  # noqa: B905
        )
        return True

    def _release_spares(self) -> None:
        spare, self._spare = self._spare, deque()
        for child in spare:
            child.close()

    def _close(self) -> None:
        if self._channel is None:
            return
        self._loop.remove(self._channel)
        self._channel.close()
        self._channel = None
        self._release_spares()
        for child in self._making:
            child.close()
            self.groups.discard(child.group)
        self._making.clear()
        queue, self._queue = self._queue, deque()
        for process in queue:
            if process.waits:
                process.zygote_died()
