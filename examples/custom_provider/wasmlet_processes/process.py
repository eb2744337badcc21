"""A process together with all processes that it has started: one process group, which gets signals as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import Process, SubprocessStreamProtocol
from collections.abc import Mapping, Sequence
from signal import SIGKILL, Signals
from typing import Any


class ProcessGroup:
    """A process group. Make one with `start`.

    The streams that `start` was asked for are `process.stdin`, `process.stdout` and `process.stderr`.
    """

    def __init__(self, process: Process, protocol: _Protocol, transport: asyncio.SubprocessTransport) -> None:
        self.process = process
        self._protocol = protocol
        self._transport = transport

    @classmethod
    async def start(
        cls, command: Sequence[str], *, directory: str, variables: Mapping[str, str], **streams: Any
    ) -> ProcessGroup:
        """Start a process as the first one of a new session and process group.

        Raises:
            OSError: the program, or the directory, cannot be used.
        """
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(
            lambda: _Protocol(loop), *command, cwd=directory, env=dict(variables), start_new_session=True, **streams
        )
        return cls(Process(transport, protocol, loop), protocol, transport)

    async def wait(self) -> int:
        """The exit code of the process, negative for a signal; then nothing else of its group is left either.

        `Process.wait` would not do: it waits for the streams as well, which a child of the process may hold open.
        """
        await self._protocol.exited.wait()
        self._kill(SIGKILL)
        code = self.process.returncode
        assert code is not None
        return code

    def signal(self, number: Signals) -> None:
        """Send it to all of the group, unless the process has ended."""
        if not self._protocol.exited.is_set():
            self._kill(number)

    def close(self) -> None:
        """Close the streams, and end what is left."""
        self.signal(SIGKILL)
        self._transport.close()

    def _kill(self, number: Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class _Protocol(SubprocessStreamProtocol):
    """The subprocess protocol of asyncio, with an event that is set when the process has ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=64 * 1024, loop=loop)
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()
