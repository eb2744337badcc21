"""Connections that capabilities ask for: opened by the node's broker where the pod was granted them."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import time
from collections.abc import Callable

from .borrowed import dialing
from .capability import HostError

_READ = 64 * 1024


class Dialler:
    """Opens connections.

    Args:
        broker: the one of this process.
        until: when the present call has to be over, by the monotonic clock in seconds.
    """

    def __init__(self, broker: dialing.Broker, until: Callable[[], float]) -> None:
        self._broker, self._until = broker, until

    def dial(self, host: str, port: int) -> SocketLink:
        """See `capability.Context`."""
        asked = dialing.Dial(self._broker, host, port)
        try:
            until = self._until()
            while (answer := asked.answer()) is None:
                poll = select.poll()
                for descriptor, events in asked.polls():
                    poll.register(descriptor, events)
                left = until - time.monotonic()
                if left <= 0:
                    raise HostError(f"{host}:{port} does not answer in time")
                poll.poll(left * 1000)
            if answer.error or not answer.fds:
                granted = "the pod's egress grant does not name it" if answer.error == errno.EACCES else ""
                raise HostError(f"{host}:{port}: {granted or os.strerror(answer.error or errno.EIO)}")
            first, *rest = asked.take()
            for descriptor in rest:
                os.close(descriptor)
            return SocketLink(first, f"{host}:{port}", self._until)
        finally:
            asked.drop()


class SocketLink:
    """See `capability.Link`. Takes over the descriptor, which does not block."""

    def __init__(self, descriptor: int, name: str, until: Callable[[], float]) -> None:
        self._descriptor, self._name, self._until = descriptor, name, until

    def send(self, data: bytes) -> None:
        view, until = memoryview(data), self._until()
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, until)
            except OSError as error:
                raise HostError(f"{self._name}: {error.strerror}") from None

    def receive(self, *, patient: bool = False) -> bytes:
        until = math.inf if patient else self._until()
        while True:
            try:
                return os.read(self._descriptor, _READ)
            except BlockingIOError:
                self._wait(select.POLLIN, until)
            except OSError as error:
                raise HostError(f"{self._name}: {error.strerror}") from None

    def cut(self) -> None:
        probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=self._descriptor)
        try:
            with contextlib.suppress(OSError):
                probe.shutdown(socket.SHUT_RDWR)
        finally:
            probe.detach()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _wait(self, events: int, until: float) -> None:
        poll = select.poll()
        poll.register(self._descriptor, events)
        left = until - time.monotonic()
        if left <= 0:
            raise HostError(f"{self._name} does not answer in time")
        poll.poll(None if left == math.inf else left * 1000)
