"""Requests of a guest's threads to the broker, the process of the node that opens sockets for guests.

All threads share the one connection of the process to the broker. A thread that waits reads all answers that have come.
It keeps those for other threads, and wakes these.
"""

from __future__ import annotations

import _thread
import errno
import os
import select
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from .bodies import ErrorCode

_CODES = {
    errno.EACCES: "HTTP-request-denied", errno.EPERM: "HTTP-request-denied", errno.ECONNREFUSED: "connection-refused",
    errno.ECONNRESET: "connection-terminated", errno.ETIMEDOUT: "connection-timeout",
    errno.EHOSTUNREACH: "destination-unavailable", errno.ENETUNREACH: "destination-unavailable",
    errno.ENOENT: "destination-not-found", errno.EHOSTDOWN: "DNS-timeout", errno.EAGAIN: "connection-limit-reached",
    errno.EMFILE: "connection-limit-reached",
}  # fmt: skip


def code_of(number: int) -> ErrorCode:
    """The error code of wasi:http for an errno."""
    name = _CODES.get(number)
    return (name, None) if name else ("internal-error", os.strerror(number))


class Broker:
    """The client of the broker, for all threads.

    Args:
        sockets: `spec["sockets"]` (`Broker` in `seam`); None if there is no network.
    """

    def __init__(self, sockets: Any) -> None:
        self._sockets = sockets
        self._lock = _thread.allocate_lock()
        self._asked: dict[int, Asked] = {}

    def begin(self, asked: Asked, operation: str, fields: dict[str, Any]) -> None:
        """Send a request."""
        if self._sockets is None:
            asked.found = _Refused()
            return
        with self._lock:
            asked.number = self._sockets.begin(operation, **fields)
            self._asked[asked.number] = asked

    def look(self, asked: Asked) -> None:
        """Read the answers that have come; `asked` is whose thread looks."""
        with self._lock:
            if asked.found is not None or asked.number not in self._asked:
                return
            # One packet may come after another: the one that is asked for here is looked for last.
            for number, one in [*self._asked.items()]:
                found = self._sockets.take(number)
                if found is not None:
                    del self._asked[number]
                    one.found = found
                    if one is not asked:
                        one.wake()

    def drop(self, asked: Asked) -> None:
        """Forget a request: nobody wants its answer any more."""
        with self._lock:  # within which others wake it, too
            if self._asked.pop(asked.number, None) is not None:
                self._sockets.drop(asked.number)

    def fileno(self) -> int:
        return int(self._sockets.fileno()) if self._sockets is not None else -1


class _Refused:
    """The answer when there is no broker."""

    error, fds, why = errno.EACCES, (), "there is no network"
    fields: Mapping[str, Any] = {}


class Asked:
    """A request to the broker, and its answer when that has come.

    Attributes:
        found: the answer (`Answer` of `wasmlet.worker.guest.sockets`); None before it has come.
        taken: somebody else closes the descriptors of the answer.
    """

    def __init__(self, broker: Broker, operation: str, **fields: Any) -> None:
        self._broker = broker
        self.number = -1
        self.found: Any = None
        self.taken = False
        self._pipe: tuple[int, int] | None = os.pipe()
        broker.begin(self, operation, fields)

    def answer(self) -> Any:
        """The answer; None where it has not come."""
        if self.found is None:
            self._broker.look(self)
        return self.found

    def polls(self) -> Sequence[tuple[int, int]]:
        """What to poll until it has come."""
        if self._pipe is None:
            return ()
        broker = self._broker.fileno()
        return ((self._pipe[0], select.POLLIN), *(((broker, select.POLLIN),) if broker >= 0 else ()))

    def wake(self) -> None:
        """Wake the thread that waits for this request."""
        if self._pipe is not None:
            os.write(self._pipe[1], b"\0")

    def take(self) -> tuple[int, ...]:
        """The descriptors of the answer, which the caller has to close."""
        self.taken = True
        return tuple(self.found.fds)

    def take_sockets(self, family: int, kind: int) -> list[socket.socket]:
        """The sockets of this address family in the answer. Others are closed."""
        found = []
        for descriptor in self.take():
            if family_of(descriptor) == family:
                found.append(socket.socket(family, kind, 0, fileno=descriptor))
            else:
                os.close(descriptor)
        return found

    def drop(self) -> None:
        """Nobody waits for it any more."""
        if self._pipe is None:
            return
        self._broker.drop(self)
        pipe, self._pipe = self._pipe, None
        for end in (*pipe, *(self.found.fds if self.found is not None and not self.taken else ())):
            os.close(end)


class Dial(Asked):
    """A request for a TCP connection. Whoever asks owns the descriptor that comes."""

    def __init__(self, broker: Broker, host: str, port: int) -> None:
        super().__init__(broker, "connect", host=host, port=port, protocol="TCP")


def family_of(descriptor: int) -> int:
    """The address family of a socket, AF_INET or AF_INET6.

    It is found by getsockname, because a confined process may not ask getsockopt for it.
    """
    probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    try:
        found = probe.getsockname()
    except OSError:
        return socket.AF_INET6
    finally:
        probe.detach()
    return socket.AF_INET6 if ":" in str(found[0]) else socket.AF_INET
