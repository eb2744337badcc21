"""The shim's half of the life of one process that a guest runs in, from the request for it to its recorded end.

`Process` is the base class of containers and execs (`containers`, `execs`, `workers`), which add the streams and what
else differs. It gets its child process from a zygote (`zygotes`), is told by the shim what happens to the child
(`shim`), and writes state, exit code and reason into its `Record`.

A process has ended when the kernel has told its exit status (it was reaped), and when all that it has sent and written
was read. A child may leave its output open to others; that is waited for `DRAIN_SECONDS` at most.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .. import wire
from ..loop import Loop, Timer
from .children import Child
from .groups import Group
from .records import Record
from .stages import Event, Stage, after

DRAIN_SECONDS = 2.0
MAX_TEXT = 4096
"""Bytes of a message that are kept, as long as a termination message in Kubernetes."""


class Hooks(NamedTuple):
    """What a process tells the shim.

    Attributes:
        changed: called after each change of the record.
        again: called when the zygote died before there was a child. Returns None if another one is tried, otherwise
            why not.
    """

    changed: Callable[[Any], None]
    again: Callable[[Any], str | None]


class Process:
    """A process for a guest, which is started once. It owns the descriptors that it is given: spec, module, mounts.

    Subclasses make the streams (`_make_streams`, `_close_streams`), say whether they have ended (`_drained`), and may
    add to the record of the end (`_conclude`).

    `stage` is its state (`stages`). These invariants hold:

    - `record.state` is `stage.shown`. `_advance` alone writes both.
    - `_child_streams` is not empty if and only if the stage is `WAITING`.
    - `record.pid` is not 0 in `STARTING`, `RUNNING`, `REAPED_UNBEGUN` and `REAPED`, and is 0 in `NEW`, `WAITING` and
      `GIVEN_UP`. (A dense container has it from `RUNNING` on only.)
    - `_status` is not None if and only if the process has been reaped: in `REAPED_UNBEGUN`, in `REAPED`, and in `ENDED`
      where one of these came before.
    - `_failure` is not None if and only if it is known why the guest could not begin, or (of a dense container) how the
      engine failed. It is set before `GIVE_UP`, by the child in `STARTING` and `REAPED_UNBEGUN`, or before `REAP`.
    - `_child` is not None if and only if more of what the child says may come; so it is None in `NEW`, `WAITING`,
      `GIVEN_UP` and `ENDED`.
    - `record.requested` is not "" if and only if somebody wanted it to stop before it was over.
    - `_kill_timer` is not None if and only if it was interrupted, it is not over, and nobody has had it killed.
    - `_oom_killed` is true only if `_status` is that of SIGKILL.
    """

    group: Group | None = None
    """The control group that it runs in."""
    messages_per_turn = 1

    def __init__(self, loop: Loop, record: Record, descriptors: Sequence[int], hooks: Hooks) -> None:
        self.record = record
        self._loop = loop
        self._hooks = hooks
        self._inherited = tuple(descriptors)
        self._child: Child | None = None
        self._stage = Stage.NEW
        self._child_streams: tuple[int, ...] = ()
        self._status: int | None = None
        self._failure: tuple[str, str] | None = None
        self._kill_timer: Timer | None = None
        self._oom_killed = False
        self._untold = False
        """Whether the guest has begun, and nobody was told yet."""

    @property
    def stage(self) -> Stage:
        """Where it stands."""
        return self._stage

    def _advance(self, event: Event) -> None:
        """Raises `NoTransition` where its stage does not have this event."""
        self._stage = after(self._stage, event)
        self.record.state = self._stage.shown

    def _make_streams(self) -> tuple[int, int, int]:
        """The child's stdin, stdout and stderr; they are closed here once the child has them."""
        raise NotImplementedError

    def _close_streams(self) -> None:
        """Close the streams, though there may be more output."""

    def _drained(self) -> bool:
        """Whether all output has been read."""
        return True

    def _conclude(self) -> None:
        """Add to the record of the end what only the subclass knows, and release all that it holds."""

    def _instructions(self, group: Group | None) -> tuple[wire.Message, tuple[int, ...]]:
        """What a child that was born in this group is told to become, and descriptors for that, here to be closed.

        Raises:
            OSError, wire.WireError: it cannot become that.
        """
        return {}, ()

    def prepare(self) -> None:
        """Make the streams for the child, whichever that will be."""
        self._child_streams = self._make_streams()
        self._advance(Event.PREPARE)

    @property
    def waits(self) -> bool:
        """Whether it has no child yet, and is to have one."""
        return self._stage is Stage.WAITING

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What its child gets, while `waits`: spec, compiled module, mounts, and the three streams."""
        return (*self._inherited, *self._child_streams)

    def run_in(self, child: Child) -> bool:
        """Give this child, which is ready, all that makes it the guest; False where it was gone before it had that.

        Its process is known and on record before it is given anything: no guest can run that nobody knows of.
        """
        record = self.record
        record.pid, child.process, self._child = child.pid, self, child
        cgroup_fds: tuple[int, ...] = ()
        try:
            message, cgroup_fds = self._instructions(child.group)
            self._hooks.changed(self)
            child.give(wire.pack(message), (*self.descriptors, *cgroup_fds))
        except (BrokenPipeError, ConnectionResetError):
            record.pid, child.process, self._child = 0, None, None
            child.close()
            return False
        except (OSError, wire.WireError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            self._failure = (f"the container cannot be handed to its process: {why}", "")
            child.close()  # the child ends without having run a guest
            self._child = None
        finally:
            wire.close(cgroup_fds)
        self.handed_over()
        return True

    def zygote_died(self) -> None:
        """The zygote or worker that was to run it has died before it had a child."""
        why = self._hooks.again(self)
        if why is not None:
            self.fail(why)

    def handed_over(self) -> None:
        """The child has all that makes it the guest."""
        self._advance(Event.HAND_OVER)
        self._close_child_streams()

    def _close_child_streams(self) -> None:
        """Close the child's ends of the streams here: as long as they are open, the streams do not end."""
        wire.close(self._child_streams)
        self._child_streams = ()

    @property
    def lives(self) -> bool:
        """Whether the guest runs, as far as is known."""
        return self._stage is Stage.RUNNING

    def reaped(self, status: int) -> None:
        """The process has ended with this wait status."""
        self._advance(Event.REAP)
        self._status = status
        if self.group is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            with contextlib.suppress(OSError):
                self._oom_killed = self.group.oom_killed()
        self._cancel_kill()
        self._finish_if_complete()
        if self._stage is not Stage.ENDED:
            self._loop.later(DRAIN_SECONDS, self._give_up_on_streams)

    def fail(self, why: str, fault: str = "") -> None:
        """It gets no process; `why` and `fault` are for its record."""
        self._failure = (why, fault)
        self._give_up()

    def _give_up(self) -> None:
        self._advance(Event.GIVE_UP)
        self._cancel_kill()
        self._hang_up_all()
        self._finish_if_complete()

    def stop(self, grace: float) -> None:
        """Interrupt the guest at once, and kill it `grace` seconds from now; 0 kills it at once.

        WASI has no signals. A child does not handle SIGTERM, so the kernel ends it at once, even while it sleeps or
        runs compiled code. Only a component that serves HTTP first finishes the requests that it has begun. A later
        call can shorten the grace period, but not extend it.
        """
        if self._stage.over:
            return
        if grace <= 0:
            self._kill()
            return
        if self.record.requested == "":
            self.record.requested = "interrupt"
            if self._stage in (Stage.NEW, Stage.WAITING):
                self._give_up()
                return
            self._interrupt_process()
        if self.record.requested == "kill":
            return
        deadline = time.monotonic() + grace
        if self._kill_timer is None or deadline < self._kill_timer.deadline:
            self._cancel_kill()
            self._kill_timer = self._loop.later(grace, self._kill)

    def _kill(self) -> None:
        self._cancel_kill()
        self.record.requested = "kill"
        if self._stage in (Stage.NEW, Stage.WAITING):
            self._give_up()
        else:
            self._kill_process()

    def _cancel_kill(self) -> None:
        if self._kill_timer is not None:
            self._kill_timer.cancel()
            self._kill_timer = None

    def _interrupt_process(self) -> None:
        os.kill(self.record.pid, signal.SIGTERM)  # it has not been reaped, so no other process has this pid

    def _kill_process(self) -> None:
        os.kill(self.record.pid, signal.SIGKILL)

    def writable(self) -> None:
        """The child can take another message; see `Child.wait_for_room`."""

    def hung_up(self) -> None:
        """The child has closed its side: it sends no more messages."""
        self._child = None
        self._finish_if_complete()

    def heard(self, message: dict[str, Any]) -> None:
        """The child has sent this message: `started` when the guest begins, `failed` or `ended` with a text."""
        # The guest may control its engine and send anything, so an event that the stage does not have is ignored.
        unbegun = self._stage in (Stage.STARTING, Stage.REAPED_UNBEGUN)
        if "started" in message and unbegun:
            self._begun()
        elif "failed" in message and unbegun:
            self._failure = self._failed(message)
        elif "ended" in message:
            self.record.message = text_of(message["ended"])

    def _begun(self) -> None:
        """The guest has begun; it may have ended since."""
        self._advance(Event.BEGIN)
        self.record.started = time.time()
        self._untold = True
        self._loop.soon(self._tell_of_beginning)  # what it writes first is on its way, and is stamped when it is read

    def _tell_of_beginning(self) -> None:
        if self._untold:
            self._untold = False
            self._hooks.changed(self)

    @staticmethod
    def _failed(message: dict[str, Any]) -> tuple[str, str]:
        fault = wire.BAD_ARTIFACT if message.get("fault") == wire.BAD_ARTIFACT else ""  # a guest may send any text
        return text_of(message["failed"]), fault

    def _finish_if_complete(self) -> None:
        """Record the end, once all that belongs to it is known."""
        if self._stage.over and self._stage is not Stage.ENDED and self._child is None and self._drained():
            self._finish()

    def _finish(self) -> None:
        self._tell_of_beginning()
        record, status, begun = self.record, self._status, self._stage is Stage.REAPED
        record.finished = time.time()
        if self._oom_killed:
            record.reason, record.exit_code = wire.OOM_KILLED, wire.KILLED_CODE
        elif self._failure is None and not begun and record.requested:
            record.exit_code = wire.INTERRUPTED_CODE if record.requested == "interrupt" else wire.KILLED_CODE
        elif self._failure is not None or not begun:
            text, record.fault = self._failure or (_why_not_begun(status), "")
            record.reason, record.exit_code, record.message = wire.START_ERROR, wire.START_ERROR_CODE, text
        elif status is not None and os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            record.exit_code = 128 + number
            if not record.requested or number not in (signal.SIGTERM, signal.SIGKILL):
                record.signal = number
                record.message = record.message or f"ended by signal {number} ({signal.strsignal(number)})"
        elif status is not None:
            record.exit_code = os.WEXITSTATUS(status)
        self._conclude()
        self._advance(Event.COMPLETE)
        wire.close(self._inherited)
        self._hooks.changed(self)

    def _give_up_on_streams(self) -> None:
        if self._stage is not Stage.ENDED:
            self._hang_up_all()
            self._finish_if_complete()

    def _hang_up_all(self) -> None:
        self._close_child_streams()
        self._close_streams()
        if self._child is not None:
            self._child.close()
            self._child = None


def text_of(value: Any) -> str:
    """Check a text from a guest's process, which may send anything: shortened; "" if it is no text."""
    text = value if isinstance(value, str) else ""
    return text.encode(errors="replace")[:MAX_TEXT].decode(errors="ignore")


def number_of(value: Any) -> int:
    """Check a number from a guest's process: 0 unless it is an unsigned integer of at most 64 bits."""
    return value if type(value) is int and 0 <= value < 1 << 64 else 0


def _why_not_begun(status: int | None) -> str:
    if status is None:
        return "the process ended before the guest began"
    if os.WIFSIGNALED(status):
        return f"the process was ended by signal {os.WTERMSIG(status)} before the guest began"
    return f"the process ended with status {os.WEXITSTATUS(status)} before the guest began"
