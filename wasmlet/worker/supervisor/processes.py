"""What runs in a child of a zygote, from the moment it is wanted until its process has been reaped and has left.

`containers` and `execs` say what its streams are and what becomes of its end. It has ended when its process has been
reaped and all that it may have said has been read; a descriptor that leaked is waited for no longer than
`DRAIN_SECONDS`. The shim (`shim`) tells it what happens to it, `zygotes` has its child.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .. import wire
from .groups import Group
from .loop import Loop, Timer
from .records import Record
from .zygotes import Child

DRAIN_SECONDS = 2.0
MAX_TEXT = 4096
"""Bytes of a message that are kept, as long as a termination message in Kubernetes."""


class Hooks(NamedTuple):
    """What a process tells the shim.

    Attributes:
        changed: after each change of the record.
        again: when the zygote died before there was a child; returns None where another one is tried, else why not.
    """

    changed: Callable[[Any], None]
    again: Callable[[Any], str | None]


class Process:
    """Runs once. Takes over the descriptors: spec, compiled module, mounts.

    Subclasses make the streams (`_make_streams`, `_close_streams`), say whether they have ended (`_drained`), and may
    add to the record of the end (`_conclude`).
    """

    group: Group | None = None
    """The control group that it runs in."""
    messages_per_turn = 1

    def __init__(self, loop: Loop, record: Record, descriptors: Sequence[int], hooks: Hooks) -> None:
        self.record = record
        self._loop = loop
        self._hooks = hooks
        self._given = tuple(descriptors)
        self._child: Child | None = None
        self._theirs: tuple[int, ...] = ()
        self._status: int | None = None
        self._failure: tuple[str, str] | None = None
        self._kill_timer: Timer | None = None
        self._oom_killed = False

    def _make_streams(self) -> tuple[int, int, int]:
        """The child's stdin, stdout and stderr; they are closed here once the child has them."""
        raise NotImplementedError

    def _close_streams(self) -> None:
        """Wait for no more output."""

    def _drained(self) -> bool:
        """Whether all output has been read."""
        return True

    def _conclude(self) -> None:
        """The record of the end is complete but for what only a subclass knows; let go of everything."""

    def _become(self, group: Group | None) -> tuple[wire.Message, tuple[int, ...]]:
        """What a child that was born in this group is told to become, and descriptors for that, here to be closed.

        Raises:
            OSError, wire.WireError: it cannot become that.
        """
        return {}, ()

    def prepare(self) -> None:
        """Make the streams, which whatever child comes gets."""
        self._theirs = self._make_streams()

    @property
    def waits(self) -> bool:
        """Whether it has no child yet, and is to have one."""
        return bool(self._theirs)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What its child gets, while `waits`: spec, compiled module, mounts, and the three streams."""
        return (*self._given, *self._theirs)

    def enter(self, child: Child) -> bool:
        """Give this child, which is ready, all that makes it the guest; False where it was gone before it had that.

        Its process is known and on record before it is given anything: no guest can run that nobody knows of.
        """
        record = self.record
        record.pid, child.process, self._child = child.pid, self, child
        doors: tuple[int, ...] = ()
        try:
            message, doors = self._become(child.group)
            self._hooks.changed(self)
            child.give(wire.pack(message), (*self.descriptors, *doors))
        except (BrokenPipeError, ConnectionResetError):
            record.pid, child.process, self._child = 0, None, None
            child.close()
            return False
        except (OSError, wire.WireError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            self._failure = (f"the container cannot be handed to its process: {why}", "")
            child.close()  # it ends without having been anything
            self._child = None
        finally:
            wire.close(doors)
        self.handed_over()
        return True

    def left_alone(self) -> None:
        """What was to run it died before that."""
        if self.record.requested:
            self._settle()
            return
        why = self._hooks.again(self)
        if why is not None:
            self.fail(why)

    def handed_over(self) -> None:
        """The child has the streams: close its ends here, or they would never end."""
        wire.close(self._theirs)
        self._theirs = ()

    @property
    def lives(self) -> bool:
        """Whether the guest runs, as far as is known."""
        return self.record.state == wire.RUNNING and self._status is None

    def reaped(self, status: int) -> None:
        """The process has ended with this wait status."""
        self._status = status
        if self.group is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            with contextlib.suppress(OSError):
                self._oom_killed = self.group.oom_killed()
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._settle()
        if self.record.state != wire.ENDED:
            self._loop.later(DRAIN_SECONDS, self._give_up_on_streams)

    def fail(self, why: str, fault: str = "") -> None:
        """There will be no process; `fault` as in the record."""
        self._failure = (why, fault)
        self._hang_up_all()
        self._settle()

    def stop(self, grace: float) -> None:
        """Interrupt the guest at once, and kill it `grace` seconds from now; 0 kills it at once.

        WASI has no signals. SIGTERM keeps its default disposition in a child, so the kernel ends it in the midst of
        whatever it does, asleep or in compiled code. Called again with a shorter grace it hurries, never the opposite.
        """
        if self.record.state == wire.ENDED or self._status is not None:
            return
        if grace <= 0:
            self._kill()
            return
        if self.record.requested == "":
            self.record.requested = "interrupt"
            if self.waits:
                self._forgo()
                return
            self._signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        if self._kill_timer is None or self._kill_timer.callback is None or deadline < self._kill_timer.deadline:
            if self._kill_timer is not None:
                self._kill_timer.cancel()
            self._kill_timer = self._loop.later(grace, self._kill)

    def _kill(self) -> None:
        self.record.requested = "kill"
        if self.waits:
            self._forgo()
        else:
            self._signal(signal.SIGKILL)

    def _forgo(self) -> None:
        """Stopped before it had a process, it never gets one."""
        self._hang_up_all()
        self._settle()

    def _signal(self, number: int) -> None:
        if self.record.pid and self._status is None:
            os.kill(self.record.pid, number)  # claimed and not reaped, so the number is still this process's

    def writable(self) -> None:
        """The child can be told more; see `Child.wait_for_room`."""

    def hung_up(self) -> None:
        """The child says nothing any more."""
        self._child = None
        self._settle()

    def heard(self, message: dict[str, Any]) -> None:
        """The child speaks: `started` when the guest begins, `failed` or `ended` with a text."""
        record = self.record
        if "started" in message and record.state == wire.STARTING:
            record.state, record.started = wire.RUNNING, time.time()
            self._hooks.changed(self)
        elif "failed" in message and record.state == wire.STARTING:
            self._failure = self._failed(message)
        elif "ended" in message:
            record.message = text_of(message["ended"])

    @staticmethod
    def _failed(message: dict[str, Any]) -> tuple[str, str]:
        return text_of(message["failed"]), text_of(message.get("fault", ""))

    def _settle(self) -> None:
        """Write down the end, once everything that belongs to it is there."""
        record = self.record
        if record.state == wire.ENDED or self._child is not None or not self._drained():
            return
        if self._status is None and (record.pid or not (self._failure or record.requested)):
            return
        self._finish()

    def _finish(self) -> None:
        record, status = self.record, self._status
        record.finished = time.time()
        if self._oom_killed:
            record.reason, record.exit_code = wire.OOM_KILLED, 128 + signal.SIGKILL
        elif self._failure is None and record.state == wire.STARTING and record.requested:
            record.exit_code = 143 if record.requested == "interrupt" else 137
        elif self._failure is not None or record.state == wire.STARTING:
            text, record.fault = self._failure or (_death(status), "")
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
        record.state = wire.ENDED
        wire.close(self._given)
        self._hooks.changed(self)

    def _give_up_on_streams(self) -> None:
        if self.record.state != wire.ENDED:
            self._hang_up_all()
            self._settle()

    def _hang_up_all(self) -> None:
        self.handed_over()
        self._close_streams()
        if self._child is not None:
            self._child.close()
            self._child = None


def text_of(value: Any) -> str:
    """A message of bounded length."""
    return str(value).encode(errors="replace")[:MAX_TEXT].decode(errors="ignore")


def _death(status: int | None) -> str:
    if status is None:
        return "the process ended before the guest began"
    if os.WIFSIGNALED(status):
        return f"the process was ended by signal {os.WTERMSIG(status)} before the guest began"
    return f"the process ended with status {os.WEXITSTATUS(status)} before the guest began"
