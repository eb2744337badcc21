"""Writes the bytes of an answer in HTTP/1.1, in chunks if its length is not known before.

`exchanges` calls it with what a guest answers, and `connections` with the node's own short answers, such as 408.
Nothing here writes to a socket.
"""

from __future__ import annotations

import http
import time
from collections.abc import Iterable, Sequence

from .fields import Pairs

_REASONS = {status.value: status.phrase for status in http.HTTPStatus}
_BODILESS = (204, 304)
"""Statuses whose answers have no body. Source: RFC 9110, section 6.4.1."""


class Unsendable(Exception):
    """The answer cannot be sent as the guest has made it. The text says why."""


class Answer:
    """Writes an answer to one request: call `head`, then `data` any number of times, then `end`.

    Args:
        method: of the request.
        version: of HTTP, of the request.
        keeps: more requests may come on the connection. It becomes false if the connection ends where the answer does.
    """

    def __init__(self, method: str, version: str, *, keeps: bool) -> None:
        self._version, self.keeps = version, keeps
        self._bodiless = method == "HEAD"
        self._chunks = False
        self._left: int | None = None
        """Bytes that are missing for the length that the head tells; None if it tells none."""

    def informational(self, status: int, fields: Pairs) -> bytes:
        """Return a head that goes before `head`; nothing for an older client, which does not know these."""
        return _first_line(status) + _lines(fields) + b"\r\n" if self._version == "1.1" else b""

    def head(self, status: int, fields: Pairs, length: int | None) -> bytes:
        """Return its head.

        Args:
            length: bytes of the body; None if that is not known yet. The guest's own field goes before it.

        Raises:
            Unsendable: the guest's own field is no length.
        """
        self._bodiless = self._bodiless or status in _BODILESS
        lines, names = [_first_line(status)], set()
        for name, value in fields:
            lower = name.lower()
            if lower == "content-length":
                if lower in names or status == 204:  # which has none; source: RFC 9110, section 8.6
                    continue
                if not value.isdigit() or len(value) > 18:
                    raise Unsendable("its content-length is no number of bytes")
                self._left = int(value)
            names.add(lower)
            lines.append(b"%b: %b\r\n" % (name.encode("ascii"), value))
        if not self._bodiless and self._left is None:
            if length is not None:
                self._left = length
                lines.append(b"content-length: %d\r\n" % length)
            elif self._version == "1.1":
                self._chunks = True
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keeps = False
        if "date" not in names:
            lines.append(b"date: %b\r\n" % date())
        if not self.keeps:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def data(self, parts: Sequence[bytes]) -> bytes:
        """Return more of its body.

        Raises:
            Unsendable: the head has told a shorter one.
        """
        data = b"".join(parts)
        if self._bodiless or not data:
            return b""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise Unsendable("its body is longer than its content-length")
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunks else data

    def end(self, trailers: Pairs) -> bytes:
        """Return its end.

        Raises:
            Unsendable: the head has told a longer body.
        """
        if self._left and not self._bodiless:
            raise Unsendable("its body is shorter than its content-length")
        return b"0\r\n%b\r\n" % _lines(trailers) if self._chunks else b""


def text(status: int, words: str, *, bodiless: bool) -> bytes:
    """Return a short answer, which is the last one on its connection.

    Args:
        bodiless: only the head is sent.
    """
    answer = Answer("HEAD" if bodiless else "GET", "1.1", keeps=False)
    body = f"{words}\n".encode()
    fields = [("content-type", b"text/plain; charset=utf-8"), ("content-length", str(len(body)).encode())]
    return answer.head(status, fields, None) + answer.data([body])


def _first_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n".encode("ascii")


def _lines(fields: Iterable[tuple[str, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % (name.encode("ascii"), value) for name, value in fields])


_dated: tuple[int, bytes] = (0, b"")


def date() -> bytes:
    """Return the present time, in the form of HTTP's field Date."""
    global _dated
    now = int(time.time())
    if _dated[0] != now:
        _dated = (now, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)).encode("ascii"))
    return _dated[1]
