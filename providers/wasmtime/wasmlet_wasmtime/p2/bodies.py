"""Bodies of HTTP messages: those that a guest reads, and those that it writes.

A body that is read comes from a `Feed`, and one that is written goes to a `Sink`. Both belong to a connection
(`exchanges`, `outgoing`), and never wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .fields import Fields, Pairs
from .instances import Failed, Instance, Resource, Trapped, once, resource
from .streams import CLOSED, ROOM, InputStream, OutputStream, Pollable, Waitable, failed
from .world import function

_TYPES = "wasi:http/types"
ErrorCode = tuple[str, Any]
"""A case of `error-code` and its payload."""


class Broken(Exception):
    """A message cannot be received, or sent, to its end."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code[0])
        self.code = code


class Feed(Protocol):
    """A source of a body."""

    def reads(self) -> Sequence[tuple[int, int]]:
        """What to poll until more has come."""
        ...

    @property
    def read_until(self) -> float | None:
        """When it counts as broken if nothing comes until then, by the monotonic clock in seconds; None for never."""
        ...

    def close(self) -> None:
        """Nobody reads it any more."""
        ...

    def take(self, limit: int) -> bytes | None:
        """The next bytes of the body. `limit` says how many are wanted; there may be more.

        Returns:
            Bytes; empty if more is still to come; None at the end of the body.

        Raises:
            Broken: the rest does not come.
        """
        ...

    @property
    def trailers(self) -> Pairs:
        """The trailer fields, which come behind the body."""
        ...


class Sink(Protocol):
    """A destination of a body."""

    def writes(self) -> Sequence[tuple[int, int]]:
        """What to poll until there is more room."""
        ...

    @property
    def write_until(self) -> float | None:
        """When it counts as broken if there is no room by then, by the monotonic clock in seconds; None for never."""
        ...

    def room(self) -> int:
        """How many bytes it takes now.

        Raises:
            Broken: it takes no more.
        """
        ...

    def send(self, data: bytes) -> None:
        """Take these bytes, for which there is room.

        Raises:
            Broken: it takes no more.
        """
        ...

    def push(self) -> None:
        """Write what was taken, as far as that works without waiting.

        Raises:
            Broken: it takes no more.
        """
        ...

    def sent(self) -> bool:
        """Whether all that was taken is written.

        Raises:
            Broken: it takes no more.
        """
        ...

    def end(self, trailers: Pairs) -> None:
        """The body is complete."""
        ...

    def abandon(self) -> None:
        """The body will not become complete."""
        ...


@resource("incoming-body")
class IncomingBody(Resource):
    """A body that comes, as the guest has it."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.opened = False

    def close(self) -> None:
        self.feed.close()


class BodyInput(InputStream):
    """The stream of an incoming body."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._found: bytes = b""
        self._ended = False
        self._broken: ErrorCode | None = None

    def polls(self) -> Sequence[tuple[int, int]]:
        return self._feed.reads()

    @property
    def until(self) -> float | None:  # type: ignore[override]
        return self._feed.read_until

    def ready(self) -> bool:
        if not self._found and not self._ended and self._broken is None:
            try:
                found = self._feed.take(ROOM)
            except Broken as error:
                self._broken = error.code
                return True
            if found is None:
                self._ended = True
            else:
                self._found = found
        return bool(self._found) or self._ended or self._broken is not None

    def read(self, limit: int) -> bytes:
        self.ready()
        if self._found:
            found, self._found = self._found[:limit], self._found[limit:]
            return found
        if self._broken is not None:
            raise failed(f"the body has not come to its end: {self._broken[0]}", self._broken)
        if self._ended:
            raise Failed(CLOSED)
        return b""


@resource("future-trailers")
class FutureTrailers(Waitable):
    """The trailer fields of an incoming body. The rest of the body is read and dropped before they come."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._answer: Any = None
        self.taken = False

    def polls(self) -> Sequence[tuple[int, int]]:
        return self._feed.reads()

    @property
    def until(self) -> float | None:  # type: ignore[override]
        return self._feed.read_until

    def close(self) -> None:
        self._feed.close()

    def ready(self) -> bool:
        if self._answer is None:
            try:
                while (found := self._feed.take(ROOM)) is not None:
                    if not found:
                        return False
                trailers = self._feed.trailers
                self._answer = (True, Fields(trailers, fixed=True) if trailers else None)
            except Broken as error:
                self._answer = (False, error.code)
        return True

    @property
    def answer(self) -> Any:
        return self._answer


@resource("outgoing-body")
class OutgoingBody(Resource):
    """A body that the guest writes.

    Bytes are kept here until there is a sink (`attach`).

    Args:
        length: the length that the head declares; None if it declares none.
        size_code: the error code for a body of another length.
    """

    def __init__(self, length: int | None, size_code: str) -> None:
        self.length, self.size_code = length, size_code
        self.written = 0
        self.held: bytearray = bytearray()
        self.sink: Sink | None = None
        self.opened = self.ended = self.abandoned = False
        self.trailers: Pairs = []
        self.stream: BodyOutput | None = None

    def attach(self, sink: Sink) -> None:
        """Set the sink, and send it what was written so far."""
        self.sink = sink
        held, self.held = bytes(self.held), bytearray()
        if held:
            sink.send(held)
        if self.ended:
            sink.end(self.trailers)
        elif self.abandoned:
            sink.abandon()

    def write(self, data: bytes) -> None:
        """Take these bytes."""
        self.written += len(data)
        if self.length is not None and self.written > self.length:
            self.close()
            raise failed("the body is longer than its content-length", (self.size_code, self.written))
        if self.sink is not None:
            self.sink.send(data)
        else:
            self.held += data

    def finish(self, trailers: Pairs) -> None:
        """It is complete.

        Raises:
            Failed: it is shorter than its head says.
        """
        if self.length is not None and self.written != self.length:
            self.close()
            raise Failed((self.size_code, self.written))
        self.ended, self.trailers = True, trailers
        if self.sink is not None:
            self.sink.end(trailers)

    def close(self) -> None:
        if not self.ended and not self.abandoned:
            self.abandoned = True
            if self.sink is not None:
                self.sink.abandon()


class BodyOutput(OutputStream):
    """The stream of an outgoing body."""

    def __init__(self, body: OutgoingBody) -> None:
        self._body = body
        self._open = True

    def polls(self) -> Sequence[tuple[int, int]]:
        return self._body.sink.writes() if self._body.sink is not None else ()

    @property
    def until(self) -> float | None:  # type: ignore[override]
        return self._body.sink.write_until if self._body.sink is not None else None

    def room(self) -> int:
        body = self._body
        if not self._open or body.ended or body.abandoned:
            raise Failed(CLOSED)
        if body.sink is None:
            return max(0, ROOM - len(body.held))
        try:
            return body.sink.room()
        except Broken as error:
            raise failed(f"the body cannot be sent: {error}", error.code) from None

    def write(self, data: bytes) -> None:
        try:
            self._body.write(data)
        except Broken as error:
            raise failed(f"the body cannot be sent: {error}", error.code) from None

    def flush(self) -> None:
        try:
            if self._body.sink is not None:
                self._body.sink.push()
        except Broken as error:
            raise failed(f"the body cannot be sent: {error}", error.code) from None

    def drained(self) -> bool:
        try:
            return self._body.sink is None or self._body.sink.sent()
        except Broken:  # `room` says so
            return True

    def close(self) -> None:
        self._open = False


@function(f"{_TYPES}.[method]incoming-body.stream")
def _stream(instance: Instance, body: IncomingBody) -> BodyInput:
    once(body, "opened")
    return BodyInput(body.feed)


@function(f"{_TYPES}.[static]incoming-body.finish")
def _finish_incoming(instance: Instance, body: IncomingBody) -> FutureTrailers:
    return FutureTrailers(body.feed)


@function(f"{_TYPES}.[method]future-trailers.subscribe")
def _subscribe_trailers(instance: Instance, future: FutureTrailers) -> Pollable:
    return Pollable(future)


@function(f"{_TYPES}.[method]future-trailers.get")
def _get_trailers(instance: Instance, future: FutureTrailers) -> Any:
    if not future.ready():
        return None
    if future.taken:
        return False, None
    future.taken = True
    return True, future.answer


@function(f"{_TYPES}.[method]outgoing-body.write")
def _write(instance: Instance, body: OutgoingBody) -> BodyOutput:
    once(body, "opened")
    body.stream = BodyOutput(body)
    return body.stream


@function(f"{_TYPES}.[static]outgoing-body.finish")
def _finish_outgoing(instance: Instance, body: OutgoingBody, trailers: Fields | None) -> None:
    if body.stream is not None and body.stream in instance.resources.values():
        raise Trapped("the guest has finished a body whose stream it still has")
    body.finish(trailers.pairs if trailers is not None else [])
