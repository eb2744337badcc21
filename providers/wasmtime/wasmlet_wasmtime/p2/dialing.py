"""What guests ask of the broker, which opens sockets, from several threads.

The broker has one connection for the whole process. Whoever waits looks at what has come, takes what is for others,
too, and wakes them.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
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
    """The broker, for all threads.

    Args:
        sockets: `spec["sockets"]`; None where there is no network.
    """

    def __init__(self, sockets: Any) -> None:
        self._sockets = sockets
        self._lock = threading.Lock()
        self._asked: dict[int, Asked] = {}

    def begin(self, asked: Asked, operation: str, fields: dict[str, Any]) -> None:
        """Ask."""
        if self._sockets is None:
            asked.found = _Refused()
            return
        with self._lock:
            asked.number = self._sockets.begin(operation, **fields)
            self._asked[asked.number] = asked

    def look(self, asked: Asked) -> None:
        """Take what has come."""
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
        """Nobody wants this answer any more."""
        with self._lock:  # within which others wake it, too
            if self._asked.pop(asked.number, None) is not None:
                self._sockets.drop(asked.number)

    def fileno(self) -> int:
        return int(self._sockets.fileno()) if self._sockets is not None else -1


class _Refused:
    """The answer where there is nobody to ask."""

    error, fds, why = errno.EACCES, (), "there is no network"
    fields: Mapping[str, Any] = {}


class Asked:
    """A question that is under way.

    Attributes:
        found: the answer (`Answer` of `wasmlet.worker.guest.sockets`).
        taken: its descriptors are somebody else's to close.
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
        """Have its thread look."""
        if self._pipe is not None:
            os.write(self._pipe[1], b"\0")

    def take(self) -> tuple[int, ...]:
        """The descriptors that have come, the caller's to close."""
        self.taken = True
        return tuple(self.found.fds)

    def take_sockets(self, family: int, kind: int) -> list[socket.socket]:
        """The sockets of this family that have come; there may be others."""
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
    """A connection that is asked for. What comes is the asker's."""

    def __init__(self, broker: Broker, host: str, port: int) -> None:
        super().__init__(broker, "connect", host=host, port=port, protocol="TCP")


def family_of(descriptor: int) -> int:
    """Whether a socket is of IPv4 or IPv6, found without getsockopt, which a confined process does not have for it."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    try:
        found = probe.getsockname()
    except OSError:
        return socket.AF_INET6
    finally:
        probe.detach()
    return socket.AF_INET6 if ":" in str(found[0]) else socket.AF_INET
