"""wasi:io: streams, pollables (what a guest can wait for), and errors.

A stream never waits by itself: `read` returns what there is, and `write` takes what there is room for. The functions at
the end of this file, which guests call, wait where the interface says so (`Instance.wait`).
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from typing import Any

from .instances import MOST_POLLABLES, Failed, Instance, Resource, Source, Trapped, resource
from .world import function

CHUNK = 8 * 1024
"""The most bytes that go to the guest, or come from it, at once. On its way, a byte takes 32 several times (`values`),
and a component that serves does this for as many requests as it has instances. Larger pieces are not faster."""
ROOM = 64 * 1024
"""The most bytes that wait to be written."""
_BLOCKING = 4096
"""The most bytes of one call that writes and waits, as the interface demands."""
_PIPE = 4096
"""How many bytes a pipe that is ready takes without waiting (PIPE_BUF)."""
CLOSED = ("closed", None)


@resource("error")
class IoError(Resource):
    """Why a stream has failed.

    Attributes:
        http: the error code of wasi:http, where it is one.
        file: the one of wasi:filesystem.
        network: the one of wasi:sockets.
    """

    def __init__(self, text: str, http: Any = None, file: str | None = None, network: str | None = None) -> None:
        self.text, self.http, self.file, self.network = text, http, file, network


def failed(text: str, http: Any = None, file: str | None = None, network: str | None = None) -> Failed:
    """The error that a function of a stream raises when its operation has failed."""
    return Failed(("last-operation-failed", IoError(text, http, file, network)))


@resource("pollable")
class Pollable(Resource):
    """What a guest passes to `poll`: it refers to something to wait for."""

    def __init__(self, source: Source) -> None:
        self.source = source


class Waitable(Resource):
    """The base of what can be waited for. By default it is ready at once."""

    until: float | None = None

    def polls(self) -> Sequence[tuple[int, int]]:
        return ()

    def ready(self) -> bool:
        return True


@resource("input-stream")
class InputStream(Waitable):
    """The base of streams that a guest reads."""

    def read(self, limit: int) -> bytes:
        """At most so many bytes; none where there are none yet.

        Raises:
            Failed: it is at its end, or broken.
        """
        raise Failed(CLOSED)


@resource("output-stream")
class OutputStream(Waitable):
    """The base of streams that a guest writes."""

    def room(self) -> int:
        """How many bytes it takes now.

        Raises:
            Failed: it is closed, or broken.
        """
        raise Failed(CLOSED)

    def write(self, data: bytes) -> None:
        """Take these bytes, for which there is room."""

    def flush(self) -> None:
        """Begin to send what was written to its destination."""

    def drained(self) -> bool:
        """Whether all that was written has reached its destination."""
        return True

    def ready(self) -> bool:
        try:
            return self.room() > 0
        except Failed:
            return True


class Drained:
    """Is ready when all that was written to a stream has reached its destination."""

    def __init__(self, stream: OutputStream) -> None:
        self._stream = stream
        self.polls = stream.polls

    @property
    def until(self) -> float | None:
        return self._stream.until

    def ready(self) -> bool:
        try:
            return self._stream.drained()
        except Failed:
            return True


class DescriptorInput(InputStream):
    """A standard stream of this process that is read: stdin."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def polls(self) -> Sequence[tuple[int, int]]:
        return ((self.descriptor, select.POLLIN),)

    def ready(self) -> bool:
        return bool(_now(self.descriptor, select.POLLIN))

    def read(self, limit: int) -> bytes:
        if not self.ready():
            return b""
        try:
            found = os.read(self.descriptor, limit)
        except OSError as error:
            raise failed(str(error.strerror)) from None
        if not found:
            raise Failed(CLOSED)
        return found


class DescriptorOutput(OutputStream):
    """A standard stream of this process that is written: stdout or stderr, a blocking pipe."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def polls(self) -> Sequence[tuple[int, int]]:
        return ((self.descriptor, select.POLLOUT),)

    def room(self) -> int:
        return _PIPE if _now(self.descriptor, select.POLLOUT) else 0

    def write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self.descriptor, data) :]
        except OSError as error:
            raise failed(str(error.strerror)) from None


def _now(descriptor: int, events: int) -> list[tuple[int, int]]:
    poll = select.poll()
    poll.register(descriptor, events)
    return poll.poll(0)


@function("wasi:io/error.[method]error.to-debug-string")
def _to_debug_string(instance: Instance, error: IoError) -> str:
    return error.text


@function("wasi:io/poll.poll")
def _poll(instance: Instance, pollables: Sequence[Pollable]) -> list[int]:
    if not pollables:
        raise Trapped("poll was given no pollables, which nothing ever ends")
    if len(pollables) > MOST_POLLABLES:
        raise Trapped(f"poll was given more than {MOST_POLLABLES} pollables")
    return instance.wait([one.source for one in pollables])


@function("wasi:io/poll.[method]pollable.ready")
def _ready(instance: Instance, pollable: Pollable) -> bool:
    return pollable.source.ready()


@function("wasi:io/poll.[method]pollable.block")
def _block(instance: Instance, pollable: Pollable) -> None:
    instance.wait([pollable.source])


@function("wasi:io/streams.[method]input-stream.subscribe", "wasi:io/streams.[method]output-stream.subscribe")
def _subscribe(instance: Instance, stream: Any) -> Pollable:
    return Pollable(stream)


@function("wasi:io/streams.[method]input-stream.read")
def _read(instance: Instance, stream: InputStream, size: int) -> bytes:
    return stream.read(min(size, CHUNK)) if size else b""


@function("wasi:io/streams.[method]input-stream.blocking-read")
def _blocking_read(instance: Instance, stream: InputStream, size: int) -> bytes:
    if not size:
        return b""
    while not (found := stream.read(min(size, CHUNK))):
        instance.wait([stream])
    return found


@function("wasi:io/streams.[method]input-stream.skip")
def _skip(instance: Instance, stream: InputStream, size: int) -> int:
    return len(_read(instance, stream, size))


@function("wasi:io/streams.[method]input-stream.blocking-skip")
def _blocking_skip(instance: Instance, stream: InputStream, size: int) -> int:
    return len(_blocking_read(instance, stream, size))


@function("wasi:io/streams.[method]output-stream.check-write")
def _check_write(instance: Instance, stream: OutputStream) -> int:
    return min(stream.room(), CHUNK)


@function("wasi:io/streams.[method]output-stream.write")
def _write(instance: Instance, stream: OutputStream, data: bytes) -> None:
    if len(data) > stream.room():
        raise Trapped("the guest has written more than check-write said it may")
    if data:
        stream.write(data)


@function("wasi:io/streams.[method]output-stream.write-zeroes")
def _write_zeroes(instance: Instance, stream: OutputStream, size: int) -> None:
    _write(instance, stream, bytes(min(size, ROOM + 1)))


@function("wasi:io/streams.[method]output-stream.blocking-write-and-flush")
def _blocking_write_and_flush(instance: Instance, stream: OutputStream, data: bytes) -> None:
    if len(data) > _BLOCKING:
        raise Trapped(f"the guest has written more than {_BLOCKING} bytes at once and waits for them")
    while data:
        room = stream.room()
        if not room:
            instance.wait([stream])
            continue
        stream.write(data[:room])
        data = data[room:]
    _blocking_flush(instance, stream)


@function("wasi:io/streams.[method]output-stream.blocking-write-zeroes-and-flush")
def _blocking_write_zeroes_and_flush(instance: Instance, stream: OutputStream, size: int) -> None:
    _blocking_write_and_flush(instance, stream, bytes(min(size, _BLOCKING + 1)))


@function("wasi:io/streams.[method]output-stream.flush")
def _flush(instance: Instance, stream: OutputStream) -> None:
    stream.room()
    stream.flush()


@function("wasi:io/streams.[method]output-stream.blocking-flush")
def _blocking_flush(instance: Instance, stream: OutputStream) -> None:
    stream.room()
    stream.flush()
    if not stream.drained():
        instance.wait([Drained(stream)])
        stream.room()


@function("wasi:io/streams.[method]output-stream.splice")
def _splice(instance: Instance, stream: OutputStream, source: InputStream, size: int) -> int:
    room = min(size, stream.room(), CHUNK)
    found = source.read(room) if room else b""
    if found:
        stream.write(found)
    return len(found)


@function("wasi:io/streams.[method]output-stream.blocking-splice")
def _blocking_splice(instance: Instance, stream: OutputStream, source: InputStream, size: int) -> int:
    while size and not (moved := _splice(instance, stream, source, size)):
        instance.wait([source] if stream.room() else [stream])
    return moved if size else 0
