"""A process for a guest, told of what happens to it in orders that a shim under test cannot be brought to at will."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.shared.descriptors import open_descriptors
from wasmlet.worker import wire
from wasmlet.worker.loop import Loop
from wasmlet.worker.supervisor.children import Child
from wasmlet.worker.supervisor.processes import Hooks, Process
from wasmlet.worker.supervisor.records import Record
from wasmlet.worker.supervisor.stages import Stage
from wasmlet.worker.supervisor.zygotes import Zygote
from wasmlet.worker.transitions import NoTransition


class Quiet(Process):
    """One whose streams are nobody's."""

    def _make_streams(self) -> tuple[int, int, int]:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        return null, os.dup(null), os.dup(null)


class Held:
    """A process for a guest, and a real process in the place of its child, at whose end of the control descriptor
    (`child`) the test is."""

    def __init__(self, command: str) -> None:
        self.loop = Loop()
        self.changes: list[str] = []
        hooks = Hooks(lambda process: self.changes.append(process.record.state), str)
        self.process = Quiet(self.loop, Record("0" * 16, {}, ""), (), hooks)
        self.process.prepare()
        ours, self.child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A child that was given to a process never speaks to its zygote.
        self._control = Child(self.loop, cast(Zygote, None), ours, None)
        self._process = subprocess.Popen([sys.executable, "-c", command])
        self._control.pid = self._process.pid
        assert self.process.run_in(self._control)

    def reap(self) -> None:
        _, status = os.waitpid(self._process.pid, 0)
        self._process.returncode = 0  # reaped here
        self.process.reaped(status)

    def say(self, **message: Any) -> None:
        wire.send(self.child, wire.pack(message))

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Serve the loop until the condition holds."""
        while not condition():
            self.loop._turn()

    @property
    def record(self) -> Record:
        return self.process.record


def test_the_start_is_read_after_the_end_is_known() -> None:
    held = Held("raise SystemExit(7)")
    assert held.process.stage is Stage.STARTING
    held.say(started=True)
    held.reap()
    assert (held.process.stage, held.record.state) == (Stage.REAPED_UNBEGUN, wire.STARTING)
    held.run_until(lambda: held.process.stage is not Stage.REAPED_UNBEGUN)
    assert (held.process.stage, held.record.state) == (Stage.REAPED, wire.RUNNING)
    held.child.close()
    held.run_until(lambda: held.process.stage is Stage.ENDED)
    assert (held.record.exit_code, held.record.reason) == (7, "")
    assert 0 < held.record.started <= held.record.finished
    assert held.changes == [wire.STARTING, wire.RUNNING, wire.ENDED]


def test_one_that_has_not_said_that_its_guest_began_never_began() -> None:
    held = Held("raise SystemExit(7)")
    held.reap()
    held.child.close()
    held.run_until(lambda: held.process.stage is Stage.ENDED)
    assert (held.record.exit_code, held.record.reason) == (wire.START_ERROR_CODE, wire.START_ERROR)
    assert held.record.message == "the process ended with status 7 before the guest began"
    assert held.changes == [wire.STARTING, wire.ENDED]


def test_what_a_child_says_out_of_turn_is_passed_over() -> None:
    held = Held("import time; time.sleep(1000)")
    held.say(started=True)
    held.run_until(lambda: held.process.stage is Stage.RUNNING)
    began = held.record.started
    held.say(started=True)
    held.say(failed="no", fault=wire.BAD_ARTIFACT)
    held.say(ended="the last")
    held.run_until(lambda: held.record.message != "")
    assert (held.process.stage, held.record.started, held.record.fault) == (Stage.RUNNING, began, "")
    held.process.stop(1000)
    held.process.stop(0)
    held.reap()
    held.process.stop(0)  # in vain: the number may be another process's by now
    held.child.close()
    held.run_until(lambda: held.process.stage is Stage.ENDED)
    assert held.record.exit_code in (128 + signal.SIGTERM, 128 + signal.SIGKILL)
    with pytest.raises(NoTransition, match="in stage ended has no event reap"):
        held.process.reaped(0)


@pytest.mark.parametrize(("grace", "code"), [(1000, 143), (0, 137)])
@pytest.mark.parametrize("prepared", [False, True])
def test_stopped_while_it_waits_it_never_gets_a_process(grace: float, code: int, prepared: bool) -> None:
    loop = Loop()
    before = open_descriptors()
    process = Quiet(loop, Record("0" * 16, {}, ""), (), Hooks(lambda _: None, str))
    if prepared:
        process.prepare()
    process.stop(grace)
    assert (process.stage, process.waits, process.record.exit_code) == (Stage.ENDED, False, code)
    process.stop(grace)
    assert process.record.exit_code == code
    assert open_descriptors() <= before
