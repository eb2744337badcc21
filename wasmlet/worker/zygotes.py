"""The zygotes as the shim holds them: started when first needed, started again after one has died.

A zygote's channel takes one message per container to fork, with the container's descriptors. What the zygote says back
is only that it is ready, or why it cannot be; everything about a container comes over the container's own control
descriptor. The other end of the channel is `zygote`.
"""

from __future__ import annotations

import os
import signal
import socket
from collections import deque

from . import linux, wire
from .loop import READ, WRITE, Loop
from .processes import Process


class Zygote:
    """A process that forks children for one engine.

    Args:
        python: the interpreter.
        module: path of the engine's in-worker module.
    """

    def __init__(self, loop: Loop, python: str, module: str) -> None:
        self._loop = loop
        self._queue: deque[Process] = deque()
        self.error = ""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker = os.path.dirname(os.path.abspath(__file__))
        command = [python, "-I", "-X", "utf8", worker, "zygote", module]
        try:
            self.pid = os.posix_spawn(
                python,
                command,
                linux.kept_environment(),
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
        loop.add(ours, READ, self._on_channel)

    @property
    def alive(self) -> bool:
        return self._channel is not None

    def fork(self, container: Process) -> None:
        """Have a child made for this container, after those asked for before."""
        self._queue.append(container)
        self._flush()

    def kill(self) -> None:
        """End the zygote and reap it; its children live on."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
        self._close()

    def reaped(self, status: int) -> None:
        """The process has ended with this wait status."""
        self.pid = 0
        self.hear()
        if not self.error and os.WIFSIGNALED(status):
            self.error = f"the engine's process was ended by signal {os.WTERMSIG(status)}"
        self._close()

    def hear(self) -> None:
        """Take in what the zygote has said so far; what it says last is why it ends."""
        while self._channel is not None:
            try:
                received = wire.receive(self._channel)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # It left without reading all that we sent; what it said before that is still to be had.
                continue
            except (wire.WireError, OSError):
                received = None
            if received is None:
                self._close()
                return
            message, descriptors = received
            wire.close(descriptors)
            self.error = str(message.get("error", ""))[:1000] or self.error

    def _on_channel(self, events: int) -> None:
        if events & READ:
            self.hear()
        self._flush()

    def _flush(self) -> None:
        while self._queue and self._channel is not None:
            container = self._queue[0]
            if not container.waits_for_zygote:  # stopped while it was queued
                self._queue.popleft()
                continue
            try:
                wire.send(self._channel, container.wanted, container.descriptors)
            except BlockingIOError:
                break
            except OSError as error:
                self.error = self.error or f"the engine's process is gone ({error.strerror})"
                self._close()
                return
            self._queue.popleft()
            container.handed_over()
        if self._channel is not None:
            self._loop.change(self._channel, READ | WRITE if self._queue else READ)

    def _close(self) -> None:
        if self._channel is None:
            return
        self._loop.remove(self._channel)
        self._channel.close()
        self._channel = None
        queue, self._queue = self._queue, deque()
        for container in queue:
            container.handed_over()  # drops the child's ends: the container sees its control end, and asks for another
