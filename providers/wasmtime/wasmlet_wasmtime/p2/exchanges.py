"""One request to a component that serves, and its answer: heads, bodies and trailers on a connection."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from .answers import Answer, Unsendable
from .bodies import Broken, ErrorCode
from .connections import READ, Connection, Gone
from .fields import Pairs, is_forbidden
from .http import IncomingRequest, OutgoingResponse
from .requests import HOST, End, Head, Refused
from .streams import ROOM

_CORK_SECONDS = 0.005
"""For so long after a request has come, what the guest writes may wait, so that more of it goes out together."""
_CORK = 16 * 1024
"""The most bytes that wait in this way."""
_DRAINED = 256 * 1024
"""The most bytes of an unread body that are read and dropped, so that the connection can have another request."""
_LONGEST_TITLE = 200
_GONE: ErrorCode = ("connection-terminated", None)
_FAULTS = {
    "HTTP-protocol-error": (400, "the request's body is not valid, or has not come to its end"),
    "HTTP-request-body-size": (413, "the request's body is too large"),
}
"""What a client is told whose request could not be read to its end, by the code that the guest was given."""


class Exchange:
    """A request, the guest's answer to it, and their bodies (`bodies.Feed`, `bodies.Sink`).

    Raises:
        Refused: the request is not taken.
    """

    read_until: float | None = None
    write_until: float | None = None

    def __init__(self, connection: Connection, request: Head) -> None:
        self._connection, self._reader = connection, connection.reader
        self.method = request.method
        self.began = time.monotonic()
        self._begun = False
        self.status = 0
        """The status of the answer; 0 before there is one."""
        self.response: OutgoingResponse | None = None
        self._answer = Answer(request.method, request.version, keeps=request.keeps)
        self.refusal: tuple[str, Any] | None = None
        self._held: list[bytes] = []
        self._size = 0
        self._ended = self._over = self._abandoned = False
        self._end_trailers: Pairs = []
        self._body_ended = False
        self._body_size = 0
        self._trailers: Pairs = []
        self._unread: ErrorCode | None = None
        """Why no more of the request comes; None if it may."""
        self._unsent: ErrorCode | None = None
        """Why no more of the answer can be sent; None if it can."""
        self.whole = self._reader.has_end()
        """Whether all of the request had come when this was made."""
        self._asks_to_go_on = False
        """Whether the client waits to be told to go on, with its body."""
        self.incoming = self._incoming(request)

    def _incoming(self, request: Head) -> IncomingRequest:
        fields, host = [], ""
        size = len(request.target)
        for name, value in request.fields:
            size += len(name) + len(value) + 4
            if name == b"host":
                host = value.decode("latin-1")
            elif name == b"transfer-encoding":
                if request.version == "1.0":
                    raise Refused(400, "the request says in two ways how long it is")
                if value.lower() != b"chunked":
                    raise Refused(501, "the request's transfer-encoding is not chunked")
            elif name == b"content-length":
                if len(value) > 18 or int(value) > self._connection.limits.body:
                    raise Refused(413, "the request's body is too large")
            elif name == b"expect" and value.lower() == b"100-continue":
                self._asks_to_go_on = request.version == "1.1" and not self.whole
            text = name.decode("ascii")
            if not is_forbidden(text):
                fields.append((text, value))
        if size > self._connection.limits.head:
            raise Refused(431, "the request's head is too large")
        if self.method == "CONNECT":
            raise Refused(501, "this is no proxy")
        target = request.target.decode("latin-1")
        path: str | None = target
        if not target.startswith("/"):
            path, host = _elsewhere(target, self.method, host)
        return IncomingRequest(self.method, path, host or None, fields, self)

    @property
    def title(self) -> str:
        """The request in the log: method and path. The query is left out, as there may be secrets in it."""
        path = (self.incoming.path or "*").partition("?")[0][:_LONGEST_TITLE]
        return f"{self.method} {''.join(c if c.isprintable() else '?' for c in path)}"

    # What comes.

    def reads(self) -> Sequence[tuple[int, int]]:
        """See `bodies.Feed`."""
        return ((self._connection.descriptor, select.POLLIN),)

    def close(self) -> None:
        """See `bodies.Feed`. The connection goes on."""

    def take(self, limit: int) -> bytes | None:
        """See `bodies.Feed`."""
        if self._unread is not None:
            raise Broken(self._unread)
        if self._body_ended:
            return None
        try:
            return self._take()
        except Broken as error:
            self._unread = error.code
            raise

    def _take(self) -> bytes | None:
        while True:
            try:
                event = self._reader.next()
            except Refused:
                raise Broken(("HTTP-protocol-error", None)) from None
            if isinstance(event, bytes):
                self._body_size += len(event)
                if self._body_size > self._connection.limits.body:
                    raise Broken(("HTTP-request-body-size", self._body_size))
                return event
            if isinstance(event, End):
                self._body_ended = True
                self._trailers = [(name.decode("ascii"), value) for name, value in event.trailers]
                return None
            self._want()
            try:
                if not self._connection.fill():
                    return b""
            except Gone:
                raise Broken(_GONE) from None

    def _want(self) -> None:
        """Send "100 Continue" to a client that waits for it before it sends the body."""
        if self._asks_to_go_on and not self._begun:
            self._connection.out += self._answer.informational(100, [])
            self._write()
        self._asks_to_go_on = False

    @property
    def trailers(self) -> Pairs:
        """See `bodies.Feed`."""
        return self._trailers

    @property
    def begun(self) -> bool:
        """Whether part of the answer may have been sent."""
        return self._begun

    # What goes.

    def writes(self) -> Sequence[tuple[int, int]]:
        """See `bodies.Sink`."""
        return ((self._connection.descriptor, select.POLLOUT),)

    def respond(self, response: OutgoingResponse) -> None:
        """See `http.Exchange`."""
        self.response = response
        if response.body is not None:
            response.body.attach(self)
        else:
            self.end([])

    def refuse(self, code: tuple[str, Any]) -> None:
        """See `http.Exchange`."""
        self.refusal = code

    def inform(self, status: int, fields: Pairs) -> None:
        """See `http.Exchange`."""
        if self._unsent is not None:
            raise Broken(self._unsent)
        if len(self._connection.out) > ROOM:
            raise Broken(("internal-error", "the client does not take what was sent before"))
        if not self._begun:
            self._connection.out += self._answer.informational(status, fields)
            self._write()

    def room(self) -> int:
        """See `bodies.Sink`."""
        if self._unsent is not None:
            raise Broken(self._unsent)
        free = ROOM - self._size - len(self._connection.out)
        if free <= 0:
            self.push(now=True)
            free = ROOM - len(self._connection.out)
        return max(0, free)

    def send(self, data: bytes) -> None:
        """See `bodies.Sink`."""
        self._held.append(data)
        self._size += len(data)
        if self._size > _CORK:
            self.push(now=True)

    def push(self, *, now: bool = False) -> None:
        """See `bodies.Sink`. Unless `now` is true, bytes wait for more until `_CORK_SECONDS` are over."""
        if (
            self._over
            or self._unsent is not None
            or self.response is None
            or not (now or time.monotonic() - self.began > _CORK_SECONDS)
        ):
            return
        try:
            self._encode()
        except Unsendable as error:
            self._unsent = ("internal-error", str(error))
            return
        self._write()

    def sent(self) -> bool:
        """See `bodies.Sink`."""
        if self._connection.out and self._unsent is None:
            self._write()
        return self._unsent is not None or not self._connection.out

    def end(self, trailers: Pairs) -> None:
        """See `bodies.Sink`."""
        self._ended, self._end_trailers = True, trailers
        self.push(now=True)

    def abandon(self) -> None:
        """See `bodies.Sink`."""
        self._abandoned = True

    def _encode(self) -> None:
        """Turn what the guest has written into bytes for the connection."""
        response, answer, made = self.response, self._answer, b""
        assert response is not None
        if not self._begun:
            answer.keeps = answer.keeps and not self._connection.last
            length = self._size if self._ended and not self._end_trailers else None
            made = answer.head(response.status, response.fields, length)
        made += answer.data(self._held)
        if self._ended and not self._over:
            made += answer.end(self._end_trailers)
            self._over = True
        self._begun, self.status = True, response.status
        self._held, self._size = [], 0
        self._connection.out += made

    def _write(self) -> None:
        try:
            self._connection.write()
        except Gone:
            self._connection.out.clear()
            self._unsent = self._unsent or _GONE

    def finish(self, failure: tuple[int, str] | None) -> str:
        """The guest has ended: check its answer, and send an error instead where that is still possible.

        Args:
            failure: the status and the text for the client, if the guest has failed.

        Returns:
            What is wrong with its answer; "" for nothing.
        """
        said = ""
        if failure is None and not self._over:
            said = self._complaint()
            failure = (500, "the handler failed") if said else None
        if self._over and not self._abandoned:
            return said
        if failure is not None and not self._begun and self._unsent is not _GONE:
            self._held.clear()
            if failure[0] == 500 and self._unread is not None:  # the guest has failed because of the client
                failure = _FAULTS.get(self._unread[0], failure)
            self.status = failure[0]
            self._connection.answer(*failure, bodiless=self.method == "HEAD")
        return said

    def _complaint(self) -> str:
        """Why the guest's answer is not complete; "" if that is not its fault."""
        if self._unsent is not None:
            return "" if self._unsent is _GONE else f"its response cannot be sent: {self._unsent[1] or self._unsent[0]}"
        if self.refusal is not None:
            return f"it answered with the error {self.refusal[0]}"
        if self.response is None:
            return "it has ended without a response"
        return "it has not finished the body of its response"

    def settle(self) -> bool:
        """Read and drop the rest of the request, if it is short. The guest's streams can no longer use the connection.

        Returns:
            Whether the connection can have another request.
        """
        most = self._connection.moved + _DRAINED
        try:
            while self._over and self._connection.moved < most and (found := self.take(READ)) is not None:
                if not found:
                    return False
        except Broken:
            return False
        finally:
            self._unread = self._unsent = _GONE  # the guest may still have a stream of it
        if not self._over or not self._body_ended or not self._answer.keeps:
            return False
        self._connection.next_cycle()
        return True


def _elsewhere(target: str, method: str, host: str) -> tuple[str | None, str]:
    """Path and authority of a request whose target is not a path: a whole URL, or *."""
    if target == "*" and method == "OPTIONS":
        return None, host
    try:
        parts = urlsplit(target)
    except ValueError:
        parts = None
    good = parts is not None and parts.scheme.lower() in ("http", "https") and parts.netloc
    if parts is None or not good or not HOST.fullmatch(parts.netloc.encode("latin-1")):
        raise Refused(400, "the request is for nothing that is here")
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), parts.netloc
