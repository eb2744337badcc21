"""Parses the requests of a connection (HTTP/1.1) with llhttp, which httptools brings.

What two servers read in different ways allows request smuggling. So llhttp is strict: it refuses Content-Length with
chunked, two Content-Lengths, other line ends than CRLF and lines that are folded. What it leaves to its user is refused
here or in `exchanges`.
"""

from __future__ import annotations

import collections
import re
from typing import NamedTuple

import httptools

Field = tuple[bytes, bytes]
_VERSIONS = ("1.0", "1.1")
_FRAMING = (b"content-length", b"transfer-encoding")
"""Fields that say where the body of a request ends."""
_EACH = 32
"""Bytes by which a field counts for more than its name and value."""
_HEAD_PIECE, _CHUNKS_PIECE = 4096, 16 * 1024
"""So many bytes are parsed at once, of heads and of bodies in chunks. Of others, all that have come."""
_TOO_LARGE = "the request's head is too large"
HOST = re.compile(rb"(?:\[[-0-9A-Za-z._~!$&'()*+,;=%:]+\]|[-0-9A-Za-z._~!$&'()*+,;=%]*)(?::[0-9]*)?")
"""A host, maybe with a port. Source: RFC 9110, section 7.2."""


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

    Bytes are parsed when somebody wants what is in them: parsed requests take ten times the memory.

    Args:
        limit: the most bytes of a head or of trailers, with 32 more for each field, and between two pieces of a body.

    Attributes:
        closed: the client sends no more.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._raw = bytearray()
        self._events: collections.deque[Event] = collections.deque()
        self._ends = 0
        """Number of ends of requests among the events."""
        self._target = b""
        self._fields: list[Field] = []
        self._in_head = self._in_body = False
        self._left = 0
        """Bytes of the present body that are still to be parsed, if its length is known."""
        self._again: bytes | None = None
        """A head for the next parser, with which it finds the end of a request whose head is told already."""
        self._size = self._fields_size = 0
        """Bytes since those that made the last event; and size of the fields that have come since."""
        self._refusal: Refused | None = None
        self.closed = False

    # llhttp calls these.

    def on_message_begin(self) -> None:
        self._target, self._fields, self._fields_size, self._in_head = b"", [], 0, True

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields_size += len(name) + len(value) + _EACH
        if self._fields_size > self._limit:
            self._refuse(431, _TOO_LARGE)
        else:
            self._fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        fields, self._fields, self._fields_size = self._fields, [], 0
        self._in_head, self._in_body = False, True
        self._left = next((int(value) for name, value in fields if name == b"content-length"), 0)
        if self._again is not None:
            self._again = None
            return
        if self._refusal is not None:
            return
        method, version = parser.get_method().decode("ascii"), parser.get_http_version()
        if parser.should_upgrade() and method != "CONNECT":
            self._again = b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(
                [b"%b: %b\r\n" % field for field in fields if field[0] in _FRAMING]
            )
        keeps = version == "1.1" and parser.should_keep_alive()
        self._events.append(Head(method, self._target, fields, version, keeps))

    def on_body(self, part: bytes) -> None:
        self._left -= len(part)
        self._events.append(part)

    def on_message_complete(self) -> None:
        if self._again is None and self._refusal is None:
            self._events.append(End(self._fields))
            self._ends += 1
            self._in_body = False

    def feed(self, data: bytes) -> None:
        """Take bytes that have come; none for the end of all."""
        if data:
            self._raw += data
        else:
            self.closed = True

    def _parse(self) -> None:
        """Parse some of the bytes. There have to be some."""
        size = (self._left if self._left > 0 else _CHUNKS_PIECE) if self._in_body else _HEAD_PIECE
        data = bytes(self._raw[:size])
        del self._raw[:size]
        before = len(self._events)
        while data and self._parser is not None and self._refusal is None:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # No other protocol is spoken here. But llhttp takes all that follows the head for that protocol.
                if self._again is None:
                    self._refuse(400, "what follows a CONNECT is no request")
                    break
                self._parser = httptools.HttpRequestParser(self)
                data = self._again + data[upgrade.args[0] :]
            except httptools.HttpParserInvalidMethodError:
                self._refuse(400, "the method is not one that is known here")
            except httptools.HttpParserError as error:
                if self._parser.get_http_version() == "2.0":
                    self._refuse(505, "expected HTTP/1.1, found HTTP/2")
                self._refuse(400, str(error))
        self._size = self._size + len(data) if len(self._events) == before else 0
        if self._size > self._limit:
            self._refuse(431, _TOO_LARGE)

    def _refuse(self, status: int, why: str) -> None:
        self._refusal = self._refusal or Refused(status, why)

    def next(self) -> Event | None:
        """The next event; None if more has to come first, or nothing more will.

        Raises:
            Refused: what comes is no request, or ends in the middle of one.
        """
        while not self._events and self._raw and self._refusal is None:
            self._parse()
        if self._events:
            event = self._events.popleft()
            if isinstance(event, bytes):
                return self._with_more(event)
            if type(event) is End:
                self._ends -= 1
            elif type(event) is Head:
                _check(event)
            return event
        if self._refusal is not None:
            raise self._refusal
        if self.closed and (self._in_head or self._in_body):
            raise Refused(400, "the request has not come to its end")
        return None

    def _with_more(self, piece: bytes) -> bytes:
        """This piece of a body, and those behind it that are parsed.

        A client may send each byte as a chunk. A guest that had to ask for each would have much to do.
        """
        pieces = [piece]
        while self._events and isinstance(more := self._events[0], bytes):
            pieces.append(more)
            self._events.popleft()
        return b"".join(pieces) if len(pieces) > 1 else piece

    def has_end(self) -> bool:
        """Whether all of the present request has come."""
        while not self._ends and self._raw and self._refusal is None:
            self._parse()
        return self._ends > 0

    @property
    def body_size(self) -> int:
        """Number of bytes of bodies that are parsed and wait."""
        return sum(len(event) for event in self._events if isinstance(event, bytes))

    @property
    def is_empty(self) -> bool:
        """Whether no part of a request waits."""
        return not self._events and not self._raw and not self._in_head and self._refusal is None

    def close(self) -> None:
        """Nothing more is taken."""
        self._parser = None  # which refers to this object
        self._raw.clear()


def _check(head: Head) -> None:
    """Check what llhttp leaves to its user.

    Raises:
        Refused: the request is not one of HTTP/1.0 or 1.1, has other than one host, or is for what is no URL.
    """
    if head.version not in _VERSIONS:
        raise Refused(505, f"expected HTTP/1.1, found HTTP/{head.version}")
    hosts = [value for name, value in head.fields if name == b"host"]
    if len(hosts) > 1 or (not hosts and head.version == "1.1"):
        raise Refused(400, f"expected one field Host, found {len(hosts)}")
    if hosts and not HOST.fullmatch(hosts[0]):
        raise Refused(400, "expected a host in the field Host, maybe with a port")
    if b"#" in head.target:
        raise Refused(400, "expected a target without a fragment (#)")
