"""One HTTP/1.1 connection to the API server: each request is written in one piece, and llhttp reads its answer.

aiohttp opens the connection (`wasmlet.kube.pool`); what is said on it is ours, since a session of aiohttp takes several
times the CPU for each request: URLs, header dictionaries, cookies, redirects, a task and a timer of its own. A node
makes three requests for each pod.

One request is under way at a time. It is bounded by a deadline, or by how long nothing may come. A connection has one
timer for all its requests, which is moved only when it is due: nearly every request has long been answered then. What
comes is bounded as well: the head of an answer, its body where that is kept, and all that is neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import attrs
import httptools

from wasmlet.kube.connections import break_off

HEAD_BYTES = 64 * 1024
"""The longest head of an answer that is read, and the most between two pieces of its body: extensions of chunks, and
trailers."""
HEAD_SECONDS = 30.0
"""How long the head of a stream may take. An API server sends it at once, and the stream may be silent from then on."""
BODY_BYTES = 256 * 2**20
"""The longest body that is kept as a whole (that of a stream is not), and the longest that a compressed one becomes. A
page of a list has some megabytes: 500 objects of mostly a few KiB."""
BUFFER_BYTES = 2**21
"""How much of a stream waits to be read: one watched object may be as large as the API allows."""
READ_BYTES = 64 * 1024
"""How much is read at once."""
_EARLY_SECONDS = 0.001
"""A timer of uvloop counts whole milliseconds."""


class Broken(Exception):
    """The connection ended within an exchange, or what came is no answer in HTTP/1.1, or one that is too long."""


class HeadIsLate(TimeoutError):
    """The head of a stream did not come in time."""


@attrs.frozen(eq=False)
class Answer:
    """What the server answered.

    Attributes:
        headers: by their names in lower case; of several of one name the last. Trailers are not among them: what
            says how to read an answer may not stand there (RFC 9110, 6.5.1).
        body: all of it; b"" where `content` has it.
        content: the body as it arrives, where that was asked for.
    """

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    content: asyncio.StreamReader | None = None


class Connection(asyncio.BufferedProtocol):
    """A connection that aiohttp has opened and hands over for good. All on the event loop.

    - `_answer` is not None if and only if a request is under way: its answer is awaited, or its body still arrives.
    - `_due` is when that has to have ended, in the loop's time; None if and only if that may take for ever.

    Args:
        opened: is closed when the connection has ended.
        lost: called then.
        buffer: what arrives is put there for a moment; connections of one loop may share it.
    """

    __slots__ = (
        "_answer",
        "_armed",
        "_beside",
        "_body",
        "_buffer",
        "_content",
        "_due",
        "_handler",
        "_head",
        "_headers",
        "_keep",
        "_loop",
        "_lost",
        "_opened",
        "_parser",
        "_silence",
        "_since",
        "_timer",
        "_transport",
        "idle_since",
        "untouched",
        "used",
    )

    def __init__(
        self, opened: aiohttp.connector.Connection, lost: Callable[[Connection], None], buffer: memoryview
    ) -> None:
        assert opened.transport is not None
        assert opened.protocol is not None
        self._opened, self._lost, self._buffer = opened, lost, buffer
        self._loop = asyncio.get_running_loop()
        self._handler, self._transport = opened.protocol, opened.transport
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Answer] | None = None
        self._content: asyncio.StreamReader | None = None
        self._headers: dict[bytes, bytes] = {}
        self._body: bytes | bytearray = b""
        self._head = False
        """The head has come."""
        self._beside = 0
        """How much has come since the last piece of the body, or without one since the request."""
        self._keep = True
        """The server has not said that this answer is the last on the connection."""
        self._silence: float | None = None
        self._since = 0.0
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0.0
        """When `_timer` is due, in the loop's time."""
        self.untouched = True
        """Nothing has come of the answer."""
        self.used = False
        """There was a request before, so that the server may have ended the connection meanwhile."""
        self.idle_since = 0.0
        """When it was given back, in the loop's time."""
        self._transport.set_protocol(self)

    @property
    def usable(self) -> bool:
        """Whether the next request can be sent on it."""
        return self._answer is None and self._keep and not self._transport.is_closing()

    async def ask(
        self, request: bytes, *, since: float, due: float | None, stream: bool = False, silence: float | None = None
    ) -> Answer:
        """Send a request and return its answer; of a stream only the head has come then.

        Args:
            since: when the request began, for `cut`.
            due: the loop's time at which all of it has to have been answered.
            silence: seconds after which the connection counts as dead if nothing comes, in place of `due`. The head
                has to be complete by then, and after `HEAD_SECONDS`.

        Raises:
            Broken: the connection ended, or what came is no answer.
            TimeoutError: time ran out. Reading the stream raises these two as well.
            HeadIsLate: it ran out before the head of a stream had come.
        """
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._answer = answer
        self._content = asyncio.StreamReader(BUFFER_BYTES) if stream else None
        self._headers, self._body, self._head, self._beside, self.untouched = {}, b"", False, 0, True
        self._since, self._silence = since, silence
        self._due = due if silence is None else self._loop.time() + min(silence, HEAD_SECONDS)
        if self._due is not None and (self._timer is None or self._due < self._armed):
            self._arm(self._due)
        if self._content is not None:
            self._content.set_transport(self._transport)
        self._transport.write(request)
        try:
            return await answer
        except BaseException:
            self.abort()
            raise
        finally:
            self.used = True

    def cut(self, before: float, when: float) -> None:
        """End a request that began before a time, if it has not ended at another one (the loop's)."""
        if self._answer is not None and self._since < before and (self._due is None or self._due > when):
            self._silence, self._due = None, when
            self._arm(when)

    def close(self) -> None:
        """Close the connection as is proper in TLS."""
        self._opened.close()

    def abort(self) -> None:
        """Close the connection at once: what is still to come, nobody waits for."""
        break_off(self._transport)
        self._opened.close()

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed = self._loop.call_at(when, self._time_is_up), when

    def _time_is_up(self) -> None:
        self._timer = None
        if self._due is None:
            return
        if self._loop.time() < self._due - _EARLY_SECONDS:
            self._arm(self._due)
        else:
            late = self._silence is not None and not self._head
            self._fail(HeadIsLate("an answer to a watch did not begin") if late else TimeoutError())

    def _fail(self, error: Exception) -> None:
        """End the exchange that is under way, and the connection."""
        answer, self._answer, self._due = self._answer, None, None
        self._keep = False
        if answer is not None:
            if not answer.done():
                answer.set_exception(error)
            elif self._content is not None:
                self._content.set_exception(error)
        self.abort()

    # --- what the transport calls

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._parser is None:
            return
        if self._answer is None:
            self._fail(Broken("it sent something that nobody asked for"))
            return
        self.untouched = False
        self._beside += nbytes
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(Broken(f"expected an answer in HTTP/1.1: {error}"))
            return
        self._fed()

    def _fed(self) -> None:
        """See that what has come is not too much, and when more has to come."""
        if self._answer is None:
            return
        if self._beside > HEAD_BYTES:
            what = "what comes between the pieces of its body" if self._head else "the head of an answer"
            self._fail(Broken(f"{what} has over {HEAD_BYTES} bytes"))
        elif len(self._body) > BODY_BYTES:
            self._fail(Broken(f"the body of an answer has over {BODY_BYTES} bytes"))
        elif self._silence is not None and self._head:
            self._due = self._loop.time() + self._silence

    def eof_received(self) -> None:
        self._ended()

    def connection_lost(self, error: Exception | None) -> None:
        if error is None:
            self._ended()
        self._fail(Broken(str(error) if error is not None and str(error) else "the server closed it"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._parser = None  # it refers to us
        self._handler.connection_lost(error)
        self._opened.close()
        self._lost(self)

    def _ended(self) -> None:
        """The server has sent all. Without a length of its own, a body ends with the connection."""
        head = self._answer is not None and self._head
        if head and not (b"content-length" in self._headers or b"transfer-encoding" in self._headers):
            self._keep = False
            self.on_message_complete()

    # --- what the parser calls

    def on_message_begin(self) -> None:
        if self._answer is None:
            raise Broken("it sent more than was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:  # the answer is still to come
            return
        self._head = True
        if self._content is not None and self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(status, self._headers, b"", self._content))

    def on_body(self, data: bytes) -> None:
        self._beside = 0
        if self._content is not None:
            self._content.feed_data(data)
        elif not self._body:
            self._body = data
        else:  # kept in one piece: those of a chunked answer may be of one byte each
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data

    def on_message_complete(self) -> None:
        if not self._head:
            self._headers = {}
            return
        assert self._parser is not None
        # Not sooner: llhttp takes the word of a trailer, too, and then no other answer.
        self._keep = self._keep and self._parser.should_keep_alive()
        answer, self._answer, self._due = self._answer, None, None
        body, self._body = self._body, b""  # an idle connection keeps no list of all pods
        if self._content is not None:
            self._content.feed_eof()
        elif answer is not None and not answer.done():
            answer.set_result(Answer(self._parser.get_status_code(), self._headers, bytes(body)))
