"""A guest's sockets: its process cannot open any, so it asks the broker for them.

For engines: `spec["sockets"]` is a `Sockets` if the container has a network. Only one thread may use it. It returns
descriptors of non-blocking sockets (`O_NONBLOCK`), which the caller closes:
- A listener is bound, but does not listen yet. Call `socket.socket(family, type, 0, fileno=fd).listen()` when the guest
  first accepts or polls. Then a probe succeeds only when the guest is really ready.
- Send with `os.write` or `os.writev`, and receive with `os.read` or `recvmsg`. The process may not call `send` or
  `sendto`, nor `sendmsg` (except for unconnected UDP sockets), because these take an address. Only a few options of
  `getsockopt` and `setsockopt` are allowed (`seccomp`), so pass family and type to `socket.socket`.

An exec in a container has no network: neither `sockets` nor `network` is in its spec.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .. import packets, wire
from ..grants import TCP, Port

_RESOLVED = 16
"""How many of the last resolved names are asked for again after the broker was restarted, so that it knows them."""
ANSWER_SECONDS = 120.0
"""After this time a request counts as failed. The broker takes less for every request."""
_LOOK_SECONDS = 5.0
_SPACE = socket.CMSG_SPACE(packets.MAX_SOCKETS * array.array("i").itemsize)
_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)


class Answer(NamedTuple):
    """The answer to a request.

    Attributes:
        fds: descriptors, which the caller closes.
        fields: the fields of the answer, see `packets`.
        error: 0 for success, otherwise an errno.
        why: the reason for the error, in words.
    """

    fds: tuple[int, ...] = ()
    fields: Mapping[str, Any] = {}
    error: int = 0
    why: str = ""


class _Asked(NamedTuple):
    packet: bytes
    until: float
    name: str


def wait_readable(descriptor: int) -> bool:
    """Wait until there is something to read, or a few seconds. Always True: nothing interrupts this wait."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll(_LOOK_SECONDS * 1000)
    return True


class Sockets:
    """The client for the broker, over the control socket of one container. It owns the descriptor from now on.

    Args:
        network: `spec["network"]`: `addresses`, and `listeners` with `number`, `name` and `protocol`.
        wait: waits until a descriptor is readable or a few seconds are over; returns False if the guest is to end.

    Attributes:
        addresses: the pod's addresses.
        listeners: the ports that are open for the guest at its start, in the order of its descriptors.
        wait: as the argument; an engine may set its own function here.
    """

    def __init__(self, control: int, network: Mapping[str, Any], wait: Callable[[int], bool] = wait_readable) -> None:
        self.addresses = tuple(map(str, network.get("addresses") or ()))
        self.listeners = tuple(
            Port(one["number"], one.get("name") or "", one.get("protocol") or TCP)
            for one in network.get("listeners") or ()
        )
        self.wait = wait
        os.set_blocking(control, False)
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, control)
        self._number = 0
        self._asked: dict[int, _Asked] = {}
        self._answers: dict[int, Answer] = {}
        self._resolved: dict[str, None] = {}
        self._gone = "the node's broker, which opens sockets, has left"

    def fileno(self) -> int:
        """The descriptor that is readable when an answer may have come; -1 if no more answers will come."""
        return self._socket.fileno() if self._socket is not None else -1

    def begin(self, operation: str, **fields: Any) -> int:
        """Send a request without waiting for the answer. Returns the number of the request, for `take`.

        Args:
            operation, fields: see `packets`.
        """
        self._number += 1
        number = self._number
        try:
            packet = wire.pack({"n": number, "ask": operation, **fields})
        except wire.WireError:  # much too long
            packet = b""
        if not 0 < len(packet) <= packets.MAX_PACKET:
            self._answers[number] = Answer(error=errno.ENAMETOOLONG, why="the request is too long")
        elif len(self._asked) >= packets.MAX_UNDER_WAY:
            self._answers[number] = Answer(error=errno.EAGAIN, why="too many requests are under way")
        else:
            name = str(fields.get("name")) if operation == packets.RESOLVE else ""
            self._asked[number] = _Asked(packet, time.monotonic() + ANSWER_SECONDS, name)
            self._say(number)
        return number

    def take(self, number: int) -> Answer | None:
        """Take the answer to a request, which is possible once; None if it has not come yet."""
        self._hear()
        asked = self._asked.get(number)
        if asked is not None and time.monotonic() > asked.until:
            del self._asked[number]
            return Answer(error=errno.ETIMEDOUT, why="the node's broker has not answered")
        return self._answers.pop(number, None)

    def drop(self, number: int) -> None:
        """Forget a request: descriptors that come with its answer are closed."""
        self._asked.pop(number, None)
        answer = self._answers.pop(number, None)
        if answer is not None:
            _close(answer.fds)

    def ask(self, operation: str, **fields: Any) -> Answer:
        """Send a request and wait for its answer. If `wait` says that the guest is to end, the error is EINTR."""
        number = self.begin(operation, **fields)
        while (answer := self.take(number)) is None:
            if not self.wait(self.fileno()):
                self.drop(number)
                return Answer(error=errno.EINTR, why="the guest is to end")
        return answer

    def open_listeners(self) -> tuple[tuple[int, ...], ...]:
        """Get the sockets of each of `listeners`: the first is bound to the pod's address, others to further ones.

        Raises:
            ValueError: a port is not available; the message names it and says what to do.
        """
        opened: list[tuple[int, ...]] = []
        try:
            for port in self.listeners:
                answer = self.ask(packets.LISTEN, port=port.number, protocol=port.protocol)
                if answer.error:
                    raise ValueError(_words(port, answer))
                opened.append(answer.fds)
        except BaseException:  # an engine's `wait` may raise, too
            for descriptors in opened:
                _close(descriptors)
            raise
        return tuple(opened)

    def close(self) -> None:
        """Close the control socket. Sockets that were handed out are not affected."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        for answer in self._answers.values():
            _close(answer.fds)
        self._answers.clear()
        self._asked.clear()

    def _say(self, number: int) -> None:
        if self._socket is None:
            self._fail(number, errno.EPIPE, self._gone)
            return
        try:
            os.write(self._socket.fileno(), self._asked[number].packet)
        except BlockingIOError:
            self._fail(number, errno.EAGAIN, "the node's broker is behind")
        except OSError:
            self._hear()  # why it is gone
            self._lose()

    def _fail(self, number: int, error: int, why: str) -> None:
        del self._asked[number]
        self._answers[number] = Answer(error=error, why=why)

    def _lose(self) -> None:
        """Close the control socket, and fail all requests that have no answer."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        for number in list(self._asked):
            self._fail(number, errno.EPIPE, self._gone)

    def _hear(self) -> None:
        """Read all packets that have arrived."""
        while self._socket is not None:
            descriptors = array.array("i")
            try:
                data, ancillary, _, _ = self._socket.recvmsg(packets.MAX_PACKET, _SPACE, _FLAGS)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # It left without having read all that was asked; what it said before that is still to be had.
                continue
            except OSError:
                data, ancillary = b"", []
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
            if not data:
                _close(descriptors)
                self._lose()
                return
            self._heard(json.loads(data), tuple(descriptors))

    def _heard(self, message: Mapping[str, Any], descriptors: tuple[int, ...]) -> None:
        number = message.get("re")
        if number in self._asked:
            name = self._asked.pop(number).name
            if name and "error" not in message:
                self._resolved.pop(name, None)
                self._resolved[name] = None
                if len(self._resolved) > _RESOLVED:
                    del self._resolved[next(iter(self._resolved))]
            error = getattr(errno, message["error"], errno.EIO) if "error" in message else 0
            self._answers[number] = Answer(descriptors, message, error, str(message.get("why", "")))
            return
        _close(descriptors)  # of a request that was asked again, or that nobody waits for
        if "gone" in message:
            self._gone = str(message["gone"])
            self._lose()
        elif "restarted" in message:
            self._ask_again()

    def _ask_again(self) -> None:
        """Repeat all open requests, because a new broker does not know them."""
        for name in list(self._resolved)[: packets.MAX_UNDER_WAY - len(self._asked)]:
            number = self.begin(packets.RESOLVE, name=name)
            self._asked.pop(number, None)  # the answer is for the broker itself
            self._answers.pop(number, None)
        for number in list(self._asked):
            if number in self._asked:
                self._say(number)
        if self._socket is not None:
            self._number += 1
            with contextlib.suppress(OSError):  # the broker waits for it, but not long
                os.write(self._socket.fileno(), wire.pack({"n": self._number, "ask": packets.REPEATED}))


def _words(port: Port, answer: Answer) -> str:
    """Why a port is not available, in words for the pod's owner."""
    what = f"port {port.number}" + (f' ("{port.name}")' if port.name else "")
    advice = {
        errno.EADDRINUSE: "something else listens there; take another containerPort, or another hostPort",
        errno.EACCES: "below 1024 the node needs to be root, or to have CAP_NET_BIND_SERVICE; take a containerPort "
        "from 1024 on",
        errno.EADDRNOTAVAIL: "the pod's address is no longer this machine's; delete the pod to have it made anew",
    }.get(answer.error, "")
    why = f"{os.strerror(answer.error)} ({answer.why})" if answer.why else os.strerror(answer.error)
    return f"cannot open {what} of the container: {why}" + (f". {advice[0].upper()}{advice[1:]}" if advice else "")


def _close(descriptors: Any) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
