"""Requests that come over a connection: HTTP/1.1, parsed by llhttp, which httptools brings.

llhttp is strict about what two servers could understand in different ways: it refuses a length beside chunks, two
lengths, other line ends than CRLF and lines that are folded. What it leaves to its user is refused here or in
`exchanges`.
"""

from __future__ import annotations

import collections
from typing import NamedTuple

import httptools

Field = tuple[bytes, bytes]
_VERSIONS = ("1.0", "1.1")
_FRAMING = (b"content-length", b"transfer-encoding")
"""Fields of requests that have a body."""


class Refused(Exception):
    """A request that is not taken: its status and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Head(NamedTuple):
    """The head of a request.

    Attributes:
        version: of HTTP, such as "1.1".
        keeps: the client allows more requests on its connection.
    """

    method: str
    target: bytes
    fields: list[Field]
    version: str
    keeps: bool


class End(NamedTuple):
    """A request has come to its end. Its trailer fields, which come behind the body."""

    trailers: list[Field]


Event = Head | bytes | End
"""What comes: a head, pieces of its body, and its end."""


class Reader:
    """What has come over a connection and was not taken yet.

    Args:
        limit: the most bytes of a head, of trailers, or between two pieces of a body.

    Attributes:
        ends: number of ends of requests that wait to be taken.
        closed: the client sends no more.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._events: collections.deque[Event] = collections.deque()
        self._target = b""
        self._fields: list[Field] = []
        self._in_head = self._in_body = self._over = False
        self._size = 0
        """Bytes that have come since those that made the last event."""
        self._refusal: Refused | None = None
        self.ends = 0
        self.closed = False

    # llhttp calls these.

    def on_message_begin(self) -> None:
        self._target, self._fields, self._in_head = b"", [], True

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        method, version, keeps = parser.get_method().decode("ascii"), parser.get_http_version(), True
        self._in_head = False
        if parser.should_upgrade():  # no other protocol is spoken here, and what follows is for llhttp of that protocol
            if any(name in _FRAMING for name, _ in self._fields):
                self._refuse(501, "a request with a body cannot ask for another protocol")
                return
            self._over, keeps = True, False
        keeps = keeps and version == "1.1" and parser.should_keep_alive()
        self._events.append(Head(method, self._target, self._fields, version, keeps))
        self._fields, self._in_body = [], True

    def on_body(self, part: bytes) -> None:
        self._events.append(part)

    def on_message_complete(self) -> None:
        if self._refusal is not None:
            return
        self._events.append(End(self._fields))
        self.ends += 1
        self._in_body = False

    def feed(self, data: bytes) -> None:
        """Take bytes that have come; none for the end of all."""
        if not data:
            self.closed = True
            return
        if self._over or self._parser is None:
            return
        before = len(self._events)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserInvalidMethodError:
            self._refuse(400, "the method is not one of HTTP")
        except httptools.HttpParserError as error:
            self._refuse(400, str(error))
        self._size = self._size + len(data) if len(self._events) == before else 0
        if self._size > self._limit:
            self._refuse(431, "the request's head is too large")

    def _refuse(self, status: int, why: str) -> None:
        self._over, self._refusal = True, self._refusal or Refused(status, why)

    def next(self) -> Event | None:
        """The next event; None if more has to come first, or nothing more will.

        Raises:
            Refused: what comes is no request, or ends in the middle of one.
        """
        if self._events:
            event = self._events.popleft()
            if type(event) is End:
                self.ends -= 1
            elif type(event) is Head:
                _check(event)
            return event
        if self._refusal is not None:
            raise self._refusal
        if self.closed and (self._in_head or self._in_body):
            raise Refused(400, "the request has not come to its end")
        return None

    @property
    def is_empty(self) -> bool:
        """Whether no part of a request waits."""
        return not self._events and not self._in_head and self._refusal is None

    def close(self) -> None:
        """Nothing more is taken."""
        self._parser = None  # which refers to this object


def _check(head: Head) -> None:
    """Check what llhttp leaves to its user.

    Raises:
        Refused: the request is not one of HTTP/1.0 or 1.1, or has other than one host.
    """
    if head.version not in _VERSIONS:
        raise Refused(505, f"expected HTTP/1.1, found HTTP/{head.version}")
    hosts = sum(1 for name, _ in head.fields if name == b"host")
    if hosts > 1 or (hosts == 0 and head.version == "1.1"):
        raise Refused(400, f"expected one field Host, found {hosts}")
