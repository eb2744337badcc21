"""One container, for the shim: its record, its streams, its log, and who is attached to it.

`processes.Process` handles its process. A container has ended when its process has ended, all its output was read (so
that the log is complete), and no exec is left in it. Until then the shim keeps what the container was given (spec,
module, mounts), without reading it, because an exec gets the same.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import messages, wire
from ..fields import Resources, ZygoteKey
from ..loop import READ, Loop
from . import crilog
from .brokers import Network
from .crilog import LogFile, Splitter
from .groups import Group
from .processes import Hooks, Process
from .records import Record, fitting
from .stages import Stage
from .termination import TerminationMessage, made_of

CHUNK = 64 * 1024
"""The most bytes read from one pipe per turn. Limits the shim's memory, and gives all containers their turn."""

END_OF_FILE = b"\x04\x04"
"""Ends the input at a terminal (Ctrl-D). After an unfinished line, the first one only submits that line."""


class Settings(NamedTuple):
    """The settings of a container in the operation `run`; see `wire`."""

    message: Any
    stdin: bool
    stdin_once: bool
    tty: bool
    log_size: int
    log_files: int
    resources: Resources

    @classmethod
    def of(cls, request: messages.Run) -> Settings:
        size, files = request.log_size or crilog.MAX_SIZE, request.log_files or crilog.MAX_FILES
        return cls(request.message, request.stdin, request.stdin_once, request.tty, size, files, request.resources)


class Container(Process):
    """A container, which runs once. It owns the descriptors from now on: spec, compiled module, mounts.

    Attributes:
        zygote: the zygote that makes its process; the module was compiled for its engine version.
        network: None if it has no sockets.
    """

    zygote: ZygoteKey
    network: Network | None = None

    def __init__(
        self,
        loop: Loop,
        record: Record,
        descriptors: Sequence[int],
        hooks: Hooks,
        settings: Settings,
        compress: Any = lambda name: None,
    ) -> None:
        super().__init__(loop, record, descriptors, hooks)
        self._settings = settings
        self._resources = settings.resources
        self._log = LogFile(record.log, settings.log_size, settings.log_files, compress)
        self._pipes: dict[int, Splitter] = {}
        self._stdin = -1
        self._attached = 0
        self.execs: set[Process] = set()
        self._termination_message = TerminationMessage(settings.message, self._inherited[2:])
        record.made = made_of(settings.message)

    @property
    def inherited(self) -> tuple[int, ...]:
        """Spec, compiled module and mounts; they stay this container's."""
        return self._inherited

    def resize(self, resources: Resources) -> None:
        """Set these limits.

        Raises:
            OSError, wire.WireError: that is not possible.
        """
        if self.group is not None:
            self.group.limit(resources)
        elif resources.memory != self._resources.memory:
            raise wire.WireError("the container has no control group, and its engine cannot change its limit of memory")
        self._resources = resources

    def open_log(self) -> None:
        """Make its log, unless it has ended; to be called before its output is read."""
        if self.stage is not Stage.ENDED:
            self._log.open()

    @property
    def limited(self) -> bool:
        """Whether its control group holds its limit of memory, so that its engine need not."""
        return self.group is not None and self.group.holds_memory

    def _instructions(self, group: Group | None) -> tuple[wire.Message, tuple[int, ...]]:
        self.group, self.record.group = group, ""
        if group is not None:
            group.limit(self._resources)
            self.record.group = group.name
        message = {"limited": True} if self.limited else {}
        if self.network is None:
            return message, ()
        namespace = self.network.open_namespace()
        try:
            control = self.network.connect()
        except OSError:
            wire.close(namespace)
            raise
        more = {"sockets": True, "namespace": bool(namespace), "datagrams": self.network.datagrams}
        return message | more, (control, *namespace)

    def reaped(self, status: int) -> None:
        for process in list(self.execs):
            process.stop(0)
        super().reaped(status)

    def exec_ended(self, process: Process) -> None:
        self.execs.discard(process)
        self._finish_if_complete()

    # Who is attached

    def attach(self) -> tuple[int, int]:
        """Write unfinished lines to the log as they come, because somebody is attached.

        Returns:
            Where in the log to begin: see `LogFile.position`. An unfinished line, perhaps a question, comes after it.
        """
        position = self._log.position
        self._attached += 1
        for splitter in self._pipes.values():
            self._log.write(splitter.finish(time.time_ns()))
        return position

    def detach(self) -> None:
        self._attached -= 1

    @property
    def stdin(self) -> int:
        """The writable, non-blocking end of the guest's stdin; -1 if it has no stdin, or it is closed."""
        return self._stdin

    def leave_stdin(self) -> None:
        """Somebody who was attached to stdin has left. With stdinOnce nobody else may come, so stdin is closed."""
        if self._settings.stdin_once:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._stdin < 0:
            return
        if self._settings.tty and self.lives:
            with contextlib.suppress(OSError):  # the guest reads nothing, and the pipe is full
                os.write(self._stdin, END_OF_FILE)
        os.close(self._stdin)
        self._stdin = -1

    # The streams

    def _make_streams(self) -> tuple[int, int, int]:
        stdout, stderr = self._make_outputs()
        try:
            return self._make_input(stdout), stdout, stderr
        except BaseException:
            wire.close((stdout, stderr))
            raise

    def _make_outputs(self) -> tuple[int, int]:
        made: list[int] = []
        try:
            if self._settings.tty:
                master, slave = os.openpty()
                made += (slave,)
                self._pump(master, "stdout")
                made += (os.dup(slave),)
                if self._settings.stdin:
                    self._stdin = os.dup(master)
                return made[0], made[1]
            for stream in ("stdout", "stderr"):
                reader, writer = os.pipe2(os.O_CLOEXEC)
                made.append(writer)
                self._pump(reader, stream)
            return made[0], made[1]
        except BaseException:
            wire.close(made)
            raise

    def _make_input(self, terminal: int) -> int:
        """The child's stdin; `terminal` is its stdout."""
        if not self._settings.stdin:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        if self._settings.tty:
            return os.dup(terminal)
        reader, self._stdin = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._stdin, False)
        return reader

    def _pump(self, reader: int, stream: str) -> None:
        os.set_blocking(reader, False)
        self._pipes[reader] = Splitter(stream)
        self._loop.add(reader, READ, functools.partial(self._on_output, reader))

    def _on_output(self, reader: int, _: int) -> None:
        splitter = self._pipes[reader]
        try:
            data = os.read(reader, CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: nobody has the terminal open any more
                raise
            data = b""
        now = time.time_ns()
        if data:
            self._termination_message.feed(data)
            self._log.write(splitter.feed(data, now))
            if self._attached:
                self._log.write(splitter.finish(now))
            return
        self._close_pipe(reader, now)
        self._finish_if_complete()

    def _close_pipe(self, reader: int, now: int) -> None:
        self._log.write(self._pipes.pop(reader).finish(now))
        self._loop.remove(reader)
        os.close(reader)

    def _close_streams(self) -> None:
        for reader in list(self._pipes):
            self._close_pipe(reader, time.time_ns())
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def _drained(self) -> bool:
        return not self._pipes and not self.execs

    def _conclude(self) -> None:
        record = self.record
        if record.message and not record.requested and record.reason != wire.START_ERROR:
            # A trap and its backtrace: on the standard error of a command that an engine's own program runs.
            said = Splitter("stdout" if self._settings.tty else "stderr")
            self._log.write(said.feed(f"{record.message}\n".encode(errors="replace"), time.time_ns()))
        record.message = ": ".join(filter(None, (record.message, self._termination_message.take(record.exit_code))))
        if record.made:
            record.leaving = self._termination_message.alone_in(record.made)
            record.made = "" if record.leaving else record.made
        if self._log.lost:
            note = f"{self._log.lost} bytes of output were lost: they could not be written to the log"
            record.message = f"{record.message}\n{note}".strip()
        record.message = fitting(record.message)
        self._log.open()
        self._log.close()
        self._close_streams()
        if self.network is not None:
            self.network.forget()
