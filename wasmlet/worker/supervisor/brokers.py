"""The shim's side of the broker: starts its process when a container needs it (or earlier), and again whenever it dies.

For each container with a network, the shim keeps the grant and the broker's end of the control socket. So it can tell a
new broker the same, and requests of the guest that arrive in the meantime wait in the socket. Sockets that were handed
out stay usable. If a broker dies soon after its start, the next one is started after a pause. If none can be started,
the containers are told. The process itself is `broker.broker`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from .. import linux, wire
from ..grants import UDP, Grant
from ..log import log_problem
from ..loop import READ, WRITE, Loop, Timer

TRIES = 6
"""After how many brokers in a row that ended before they were ready the containers are told."""
START_SECONDS = 30.0
"""How long one may take to be ready."""
STEADY_SECONDS = 10.0
"""A broker that lived this long after it was ready does not count as a failed one."""
IDLE_SECONDS = 600.0
"""After how long a broker that no container needs ends. It is longer than the pause before a container's restart."""
PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before another one is started: these, then twice as many each time, up to the most."""
_MESSAGES_PER_TURN = 16


class Network:
    """The network of one container, for the shim: its grant and its connection to the broker.

    Args:
        shared: the container shares its process with others. Then it gets no UDP sockets that are bound and not
            connected (`guest.seccomp`).
    """

    def __init__(self, broker: Broker, name: str, grant: Grant, *, shared: bool) -> None:
        self._broker = broker
        self._name = name
        self._grant = grant
        unconnected = bool(grant.namespace) and any(port.protocol == UDP for port in grant.ports)
        self.datagrams = unconnected and not shared

    def connect(self) -> int:
        """Make its control socket. Returns the guest's end, which the caller closes. Raises `OSError`."""
        return self._broker.connect(self._name, self._grant, datagrams=self.datagrams)

    def open_namespace(self) -> tuple[int, ...]:
        """Open the pod's network namespace, if it has one. The caller closes the descriptor.

        Raises:
            wire.WireError: it is gone.
        """
        path = self._grant.namespace
        try:
            return (os.open(path, os.O_RDONLY | os.O_CLOEXEC),) if path else ()
        except OSError as error:
            raise wire.WireError(f"the pod's network namespace {path} cannot be opened: {error.strerror}") from None

    def forget(self) -> None:
        """The container has ended."""
        self._broker.forget(self._name)


class _Link(NamedTuple):
    """What the shim keeps of one container, to tell each new broker.

    Attributes:
        control: the broker's end of the control socket.
        message: the `add` message for the broker.
        namespace: path of the pod's network namespace, or "".
    """

    control: socket.socket
    message: wire.Message
    namespace: str


class Broker:
    """The broker of a node; there is a process while a container needs it.

    Args:
        refused: called with the name of a container and what it was not granted to dial.
    """

    def __init__(self, loop: Loop, refused: Callable[[str, str], None]) -> None:
        self.pid = 0
        self._loop = loop
        self._refused = refused
        self._links: dict[str, _Link] = {}
        self._given: set[str] = set()
        """Containers that some broker has been told of."""
        self._channel: socket.socket | None = None
        self._queue: deque[tuple[str, bool]] = deque()
        """Containers that the broker has yet to be told of: to add (true) or to remove."""
        self._never_at: tuple[tuple[str, int], ...] = ()
        self._never_told = True
        self._ready_at = 0.0
        self._failures = 0
        self._unready = 0
        self._again: Timer | None = None
        self._patience: Timer | None = None
        self._idle: Timer | None = None
        self._let_go = False
        """The process was told to end, because no container needed it."""
        self._stopped = False

    def connect(self, name: str, grant: Grant, *, datagrams: bool) -> int:
        """Make a container's control socket, in place of an earlier one. Returns the guest's end; the caller closes it.

        Raises:
            OSError: no descriptors are left.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        self.forget(name)
        message = {"add": name, "grant": grant.as_message(), "datagrams": datagrams}
        self._links[name] = _Link(ours, message, grant.namespace)
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._queue.append((name, True))
        if self.pid:
            self._flush()
        elif self._again is None:
            self._start()
        return theirs.detach()

    def never_dial(self, places: tuple[tuple[str, int], ...]) -> None:
        """Set where the node's own API is now. No container may dial it, not even those that already run."""
        if places != self._never_at:
            self._never_at, self._never_told = places, False
            self._flush()

    def warm(self) -> None:
        """Have the process ready before a container needs it."""
        if not self.pid and self._again is None:
            self._start(anyway=True)
            self._end_when_idle()

    def forget(self, name: str) -> None:
        """This container has ended, or has another control socket."""
        link = self._links.pop(name, None)
        if link is not None:
            link.control.close()
            self._given.discard(name)
            self._queue.append((name, False))
            self._flush()
        self._end_when_idle()

    def reaped(self, status: int) -> None:
        """The process has ended with this wait status."""
        self.pid = 0
        if self._channel is not None:
            self._read()  # what it said last
        self._close_channel()
        if self._stopped:
            return
        let_go, self._let_go = self._let_go, False
        if let_go or not self._links:
            self._start()
            return
        lived = bool(self._ready_at) and time.monotonic() - self._ready_at >= STEADY_SECONDS
        self._failures = 0 if lived else self._failures + 1
        self._unready = 0 if self._ready_at else self._unready + 1
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
        log_problem(f"the broker ended with {how}")
        self._start_later(how)

    def stop(self) -> None:
        """End the process, and reap it; what containers have stays theirs."""
        self._stopped = True
        for timer in (self._again, self._patience, self._idle):
            if timer is not None:
                timer.cancel()
        self._close_channel()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def _end_when_idle(self) -> None:
        if not self._links and self._idle is None:
            self._idle = self._loop.later(IDLE_SECONDS, self._when_idle)

    def _when_idle(self) -> None:
        self._idle = None
        if not self._links and self._channel is not None:
            self._let_go = True
            self._close_channel()  # which it ends with

    def _start_later(self, how: str) -> None:
        if self._unready >= TRIES:
            self._unready = self._failures = 0
            self._give_up(how)
            return
        pause = min(LONGEST_PAUSE, PAUSE * 2.0 ** min(self._failures - 1, 16)) if self._failures else 0.0
        self._again = self._loop.later(pause, self._start)

    def _give_up(self, how: str) -> None:
        """Tell all containers that there is no broker. One that is just starting, and needs a socket for it, fails."""
        why = f"the broker, which opens the sockets of containers, cannot start ({how}; see the node's shim.log)"
        log_problem(f"{why}; {len(self._links)} containers have been told")
        links, self._links = self._links, {}
        self._given.clear()
        self._queue.clear()
        for link in links.values():
            with contextlib.suppress(OSError):
                link.control.setblocking(False)
                wire.send(link.control, json.dumps({"gone": why}).encode())
            link.control.close()

    def _start(self, *, anyway: bool = False) -> None:
        self._again = None
        if self._stopped or not (self._links or anyway):
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ready_at = 0.0
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", wire.CODE, "broker", str(os.getpid())],
                {**linux.kept_environment(), "MALLOC_ARENA_MAX": "1"},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
                setsigmask=(),
                setsigdef=(signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE),
            )
        except OSError as error:
            ours.close()
            log_problem(f"cannot start the broker: {error.strerror}")
            self._failures += 1
            self._unready += 1
            self._start_later(error.strerror or str(error))
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self._channel = ours
        self._queue = deque((name, True) for name in self._links)
        self._never_told = not self._never_at
        self._patience = self._loop.later(START_SECONDS, self._kill)
        self._loop.add(ours, READ, self._on_channel)
        self._flush()

    def _kill(self) -> None:
        if self.pid:
            log_problem(f"the broker was not ready within {START_SECONDS:g} s: it is killed")
            os.kill(self.pid, signal.SIGKILL)

    def _close_channel(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._channel is not None:
            self._loop.remove(self._channel)
            self._channel.close()
            self._channel = None
        self._queue.clear()

    def _on_channel(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & READ:
            self._read()

    def _read(self) -> None:
        for _ in range(_MESSAGES_PER_TURN):
            if self._channel is None:
                return
            try:
                received = wire.receive(self._channel)
            except BlockingIOError:
                return
            except (wire.WireError, OSError):
                received = None
            if received is None:
                self._lose_channel()
                return
            message, descriptors = received
            wire.close(descriptors)
            if "ready" in message:
                self._ready_at = time.monotonic()
                if self._patience is not None:
                    self._patience.cancel()
                    self._patience = None
            elif "refused" in message and str(message["refused"]) in self._links:
                self._refused(str(message["refused"]), str(message.get("what")))

    def _lose_channel(self) -> None:
        """The channel failed: end the process. The rest follows when it is reaped."""
        self._close_channel()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)

    def _flush(self) -> None:
        while (self._queue or not self._never_told) and self._channel is not None:
            try:
                if not self._never_told:
                    wire.send(self._channel, wire.pack({"never": self._never_at}))
                    self._never_told = True
                    continue
                self._tell(*self._queue[0])
            except BlockingIOError:
                break
            except OSError:
                self._lose_channel()
                return
            self._queue.popleft()
        if self._channel is not None:
            self._loop.change(self._channel, READ | WRITE if self._queue or not self._never_told else READ)

    def _tell(self, name: str, add: bool) -> None:
        assert self._channel is not None
        link = self._links.get(name)
        if not add:
            if link is None:  # else it has a new one, which takes the place of this
                wire.send(self._channel, wire.pack({"remove": name}))
            return
        if link is None:
            return
        descriptors = [link.control.fileno()]
        opened: list[int] = []
        if link.namespace:
            # Where it is gone, the broker says so to whoever asks.
            with contextlib.suppress(OSError):
                opened.append(os.open(link.namespace, os.O_RDONLY | os.O_CLOEXEC))
        try:
            message = {**link.message, "again": name in self._given}
            wire.send(self._channel, wire.pack(message), (*descriptors, *opened))
        finally:
            wire.close(opened)
        self._given.add(name)
