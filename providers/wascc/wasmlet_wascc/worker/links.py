"""The connections of capabilities. The node's broker opens them, if the pod was granted that address.

They are unencrypted, or use TLS and verify the other side with the authorities that the system trusts.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

from .borrowed import dialing, wire
from .capability import HostError, Silent
from .failures import Ended

_READ = 64 * 1024
_ENDS = (errno.EPIPE, errno.ECONNRESET)
_SILENT_SECONDS = 10.0
"""If for so long no byte comes, or none is taken, the connection counts as silent, even if the call may take longer."""
_PATIENT_SECONDS = 120.0
"""The same for `receive(patient=True)`."""


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
            until = min(self._until(), time.monotonic() + _SILENT_SECONDS)
            while (answer := asked.answer()) is None:
                poll = select.poll()
                for descriptor, events in asked.polls():
                    poll.register(descriptor, events)
                left = until - time.monotonic()
                if left <= 0:
                    raise Silent(f"{host}:{port} does not answer in time")
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
    """A connection (`capability.Link`) on a descriptor that does not block. It takes the descriptor over."""

    def __init__(self, descriptor: int, name: str, until: Callable[[], float]) -> None:
        self._descriptor, self._name, self._until = descriptor, name, until
        self._tls: _Tls | None = None
        self._writing = threading.Lock()

    def secure(self, host: str) -> None:
        tls, until = _Tls(host), self._until()
        try:
            while not tls.shake():
                self._write(tls.written(), until)
                tls.came(self._read(until))
            self._write(tls.written(), until)
        except ssl.SSLCertVerificationError as error:
            why = error.verify_message or "it is not trusted"
            raise HostError(f"{self._name}: the certificate of {host} is refused: {why}") from None
        except ssl.SSLError as error:
            why = (error.reason or "it does not").lower().replace("_", " ")
            raise HostError(f"{self._name} does not agree on TLS: {why}") from None
        self._tls = tls

    def send(self, data: bytes) -> None:
        until, tls = self._until(), self._tls
        if tls is None:
            self._write(data, until)
            return
        with self._broken():
            tls.write(data)
        with self._writing:
            while data := tls.written():
                self._write(data, until)

    def receive(self, *, patient: bool = False) -> bytes:
        until, tls = math.inf if patient else self._until(), self._tls
        if tls is None:
            return self._read(until)
        while True:
            with self._broken():
                found = tls.read(_READ)
            # TLS may have bytes of its own to send. If another thread is sending now, that one sends them, too.
            if self._writing.acquire(blocking=False):
                try:
                    self._write(tls.written(), self._until())
                finally:
                    self._writing.release()
            if found is not None:
                return found
            tls.came(self._read(until))

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

    @contextlib.contextmanager
    def _broken(self) -> Iterator[None]:
        try:
            yield
        except ssl.SSLEOFError:  # without a farewell of TLS, as when its process was killed
            raise Ended(f"{self._name} has closed the connection") from None
        except ssl.SSLError:
            raise HostError(f"{self._name}: the connection is broken") from None

    def _write(self, data: bytes, until: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, until)
            except OSError as error:
                kind = Ended if error.errno in _ENDS else HostError
                raise kind(f"{self._name}: {error.strerror}") from None

    def _read(self, until: float) -> bytes:
        while True:
            try:
                return os.read(self._descriptor, _READ)
            except BlockingIOError:
                self._wait(select.POLLIN, until)
            except OSError as error:
                if error.errno in _ENDS:
                    return b""
                raise HostError(f"{self._name}: {error.strerror}") from None

    def _wait(self, events: int, until: float) -> None:
        """Wait for the other side, at most until `until`, and at most `_SILENT_SECONDS` or `_PATIENT_SECONDS`."""
        poll = select.poll()
        poll.register(self._descriptor, events)
        most = _PATIENT_SECONDS if until == math.inf else _SILENT_SECONDS
        left = min(until - time.monotonic(), most)
        if left <= 0 or not poll.poll(left * 1000):
            raise Silent(f"{self._name} does not answer in time")


class _Tls:
    """TLS of one connection, for a thread that reads and others that write."""

    def __init__(self, host: str) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = wire.trusted().wrap_bio(self._in, self._out, server_hostname=host)
        self._lock = threading.Lock()

    def shake(self) -> bool:
        """Go on with the handshake. Returns whether it is done; if not, read first. Raises `ssl.SSLError`."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def came(self, data: bytes) -> None:
        """Take bytes that have come from the network; empty if the other side has closed the connection."""
        with self._lock:
            if data:
                self._in.write(data)
            else:
                self._in.write_eof()

    def written(self) -> bytes:
        """The bytes to send over the network."""
        with self._lock:
            return self._out.read()

    def write(self, data: bytes) -> None:
        """Have this sent. Raises `ssl.SSLError`."""
        with self._lock:
            if data:
                self._tls.write(data)

    def read(self, most: int) -> bytes | None:
        """What the other side has sent; None for nothing yet, empty at its end. Raises `ssl.SSLError`."""
        with self._lock:
            try:
                return self._tls.read(most)
            except ssl.SSLWantReadError:
                return None
            except ssl.SSLZeroReturnError:
                return b""
