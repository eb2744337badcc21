"""wasi:http/outgoing-handler: HTTP requests that a guest sends.

The broker opens the connections (`dialing`), and only to what the pod was granted. After a response, the connection
(`wire`) waits in the `pool` for the next request to the same place. Only a request that may be sent twice uses such a
connection, because the server may close it at that very moment.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from typing import Any, Protocol

import h11

from .bodies import Broken, ErrorCode
from .dialing import Broker, Dial, code_of
from .fields import Pairs, encoded, is_forbidden
from .http import IncomingResponse, OutgoingRequest, RequestOptions, method_text
from .instances import Failed, Instance, resource
from .pool import Place, Pool
from .streams import ROOM, Pollable, Waitable
from .wire import Wire
from .world import function

_TYPES = "wasi:http/types"
_HEAD = 64 * 1024
"""Bytes of a response's head, at most."""
_PORTS = {"HTTP": 80, "HTTPS": 443}
_IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
"""Methods of requests that may be sent twice (RFC 9110, 9.2.2)."""
_SECONDS = 60.0
"""How long each part of a request may take, where the guest does not say it."""
_MOST_SECONDS = 3600.0
_NANO = 1_000_000_000
_AUTHORITY = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[-A-Za-z0-9._~%!$&'()*+,;=]+))(?::(?P<port>[0-9]{1,5}))?"
)


class Host(Protocol):
    """What a request needs of the process that sends it."""

    @property
    def broker(self) -> Broker: ...
    @property
    def pool(self) -> Pool: ...


class Call(Waitable):
    """One request and its response; it is the `bodies.Sink` of the one and the `bodies.Feed` of the other.

    It never waits by itself.

    Raises:
        Failed: with an error-code: the request cannot be sent.
    """

    def __init__(self, process: Host, request: OutgoingRequest, options: RequestOptions | None) -> None:
        scheme = (request.scheme or ("HTTPS", None))[0]
        found = _AUTHORITY.fullmatch(request.authority or "")
        if found is None or scheme not in _PORTS:
            raise Failed(("HTTP-request-URI-invalid", None) if scheme in _PORTS else ("HTTP-protocol-error", None))
        host = found["six"] or found["host"]
        port = int(found["port"] or _PORTS[scheme])
        if not 0 < port < 65536:
            raise Failed(("HTTP-request-URI-invalid", None))
        options = options or RequestOptions()
        self._connect, self._first, self._between = map(
            _seconds, (options.connect, options.first_byte, options.between_bytes)
        )
        self._request = request
        self._host = f"[{host}]" if found["six"] else host
        self._host += f":{found['port']}" if found["port"] else ""
        self._process, self._place = process, Place(scheme == "HTTPS", host, port)
        self._protocol, self._wire = _fresh(), Wire(None)
        self._dial: Dial | None = None
        self._connecting = self._reused = self._heard = False
        self._begun = self._over = self._ended = self._read_over = False
        self._held: list[bytes] = []
        self._size = 0
        self._end_trailers: Pairs = []
        self._trailers: Pairs = []
        self._broken: ErrorCode | None = None
        self._answer: Any = None
        self._time("connection-timeout", self._connect)

    def _time(self, code: str, seconds: float) -> None:
        """From now on, it fails with this error code if nothing happens for so many seconds."""
        self._late: ErrorCode = (code, None)
        self.until = time.monotonic() + seconds

    @property
    def read_until(self) -> float | None:
        """See `bodies.Feed`."""
        return self.until

    write_until = read_until

    # What is waited for.

    def polls(self) -> Sequence[tuple[int, int]]:
        if self._wire.connected:
            return self._wire.polls()
        return self._dial.polls() if self._dial is not None else ()

    reads = polls

    def writes(self) -> Sequence[tuple[int, int]]:
        """See `bodies.Sink`. What has come of the response makes no room, and would end each wait at once."""
        return self._wire.polls_to_write() if self._wire.connected else self.polls()

    def ready(self) -> bool:
        """Whether there is an answer: a response, or the reason why there is none."""
        if self._answer is None:
            try:
                self._advance()
                response = self._response() if self._wire.shaken and self._begun else None
            except Broken as error:
                if self._reused and not self._heard and time.monotonic() < (self.until or 0.0):
                    self._again()
                    return False
                self._fail(error.code)
                return True
            if response is None:
                return False
            fields = [(name.decode("ascii"), bytes(value)) for name, value in response.headers]
            kept = [(name, value) for name, value in fields if not is_forbidden(name)]
            self._answer = (True, IncomingResponse(response.status_code, kept, self))
            self._time("connection-read-timeout", self._between)
        return True

    @property
    def answer(self) -> Any:
        return self._answer

    def _fail(self, code: ErrorCode) -> None:
        self._broken = self._broken or code
        if self._answer is None:
            self._answer = (False, self._broken)
        self._close()

    def _advance(self) -> None:
        """Do what can be done now without waiting: connect, agree on TLS, and write."""
        if self._broken is not None:
            raise Broken(self._broken)
        if self.until is not None and time.monotonic() >= self.until:
            raise Broken(self._late)
        if not self._connecting:
            self._begin_connecting(reuse=True)
        if not self._wire.connected:
            assert self._dial is not None
            answer = self._dial.answer()
            if answer is None:
                return
            if answer.error:
                raise Broken(code_of(answer.error))
            (self._wire.descriptor,) = self._dial.take()
            self._dial.drop()
            self._time("HTTP-response-timeout", self._first)
        if self._wire.shake():
            self._encode()
        self._wire.write()

    def _begin_connecting(self, *, reuse: bool) -> None:
        """Take a connection from the pool, or else ask the broker for one."""
        self._connecting = True
        empty = self._request.body is None or (self._ended and not self._size and not self._end_trailers)
        link = None
        if reuse and empty and method_text(self._request.method) in _IDEMPOTENT:
            link = self._process.pool.take(self._place)
        if link is not None:
            self._wire, self._protocol, self._reused = link.wire, link.protocol, True
            self._time("HTTP-response-timeout", self._first)
            return
        secure, host, port = self._place
        try:
            self._wire = Wire(host if secure else None)
        except ValueError:  # TLS takes no such name
            raise Broken(("HTTP-request-URI-invalid", None)) from None
        try:
            self._dial = Dial(self._process.broker, host, port)
        except OSError as error:  # the process has no descriptor left
            raise Broken(code_of(error.errno or 0)) from None

    def _again(self) -> None:
        """Send the request once more, on a new connection: the server has closed the pooled one without an answer."""
        self._wire.close()
        self._protocol = _fresh()
        self._reused = self._begun = self._over = False
        self._time("connection-timeout", self._connect)
        self._begin_connecting(reuse=False)

    # The request.

    def room(self) -> int:
        """See `bodies.Sink`."""
        self._pump()
        if self._over:
            return 0
        return max(0, ROOM - self._size - len(self._wire.plain) - len(self._wire.out))

    def send(self, data: bytes) -> None:
        """See `bodies.Sink`."""
        self._held.append(data)
        self._size += len(data)
        self._pump()

    def push(self) -> None:
        """See `bodies.Sink`."""
        self._pump()

    def sent(self) -> bool:
        """See `bodies.Sink`. Also true while there is no connection yet."""
        self._pump()
        return not self._wire.connected or not (self._wire.out or self._held)

    def end(self, trailers: Pairs) -> None:
        """See `bodies.Sink`."""
        self._ended, self._end_trailers = True, trailers
        with contextlib.suppress(Broken):  # the answer says so
            self._pump()

    def abandon(self) -> None:
        """See `bodies.Sink`."""
        self._fail(("HTTP-protocol-error", None))

    def _pump(self) -> None:
        if self._read_over:  # nobody wants the rest of the request any more
            self._held.clear()
            self._size = 0
            return
        try:
            self._advance()
        except Broken as error:
            self._fail(error.code)
            raise

    def _encode(self) -> None:
        try:
            if not self._begun:
                self._begin()
            if self._held:
                held, self._held, self._size = self._held, [], 0
                self._wire.plain += self._protocol.send(h11.Data(data=b"".join(held))) or b""
            if self._ended and not self._over:
                self._over = True
                trailers = self._end_trailers if self._chunked else []
                self._wire.plain += self._protocol.send(h11.EndOfMessage(headers=encoded(trailers))) or b""
        except h11.LocalProtocolError:
            if self._protocol.their_state is h11.ERROR or self._answer is not None:
                self._held.clear()  # the answer came before the request's end, which nobody wants any more
                return
            raise Broken(("HTTP-protocol-error", None)) from None

    def _begin(self) -> None:
        request = self._request
        method = method_text(request.method)
        fields: list[tuple[str, Any]] = [("host", self._host), *request.fields]
        declared = any(name.lower() == "content-length" for name, _ in request.fields)
        if request.body is None:
            self._ended = True
        self._chunked = False
        if not declared:
            if self._ended and not self._end_trailers:
                if self._size or method in ("POST", "PUT", "PATCH"):
                    fields.append(("content-length", str(self._size)))
            else:
                self._chunked = True
                fields.append(("transfer-encoding", "chunked"))
        self._begun = True
        head = h11.Request(method=method, target=request.path or "/", headers=fields)
        self._wire.plain += self._protocol.send(head) or b""

    # The response.

    def _event(self) -> Any:
        """The next event; None where nothing has come."""
        while True:
            try:
                event = self._protocol.next_event()
            except h11.RemoteProtocolError:
                code = "HTTP-response-incomplete" if self._wire.ended else "HTTP-protocol-error"
                raise Broken((code, None)) from None
            if event is h11.NEED_DATA:
                data = self._wire.receive()
                if data is None:
                    return None
                self._heard = self._heard or bool(data)
                self._protocol.receive_data(data)
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    raise Broken(("HTTP-upgrade-failed", None))
            elif isinstance(event, h11.ConnectionClosed):
                raise Broken(("HTTP-response-incomplete", None))
            else:
                return event

    def _response(self) -> h11.Response | None:
        event = self._event()
        if event is None or isinstance(event, h11.Response):
            return event
        raise Broken(("HTTP-protocol-error", None))

    def take(self, limit: int) -> bytes | None:
        """See `bodies.Feed`."""
        if self._read_over:
            return None
        try:
            self._advance()
            event = self._event()
        except Broken as error:
            self._fail(error.code)
            raise
        if event is None:
            return b""
        self._time("connection-read-timeout", self._between)
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            self._trailers = [(name.decode("ascii"), bytes(value)) for name, value in event.headers]
        self._read_over = True
        wire, self._wire = self._wire, Wire(None)
        self._process.pool.put(self._place, wire, self._protocol)
        return None

    @property
    def trailers(self) -> Pairs:
        """See `bodies.Feed`."""
        return self._trailers

    def close(self) -> None:
        """See `bodies.Feed`."""
        if self._answer is not None and self._broken is None:
            with contextlib.suppress(Broken):
                self.take(ROOM)  # the end may be there, and the connection can go on
        self._broken = self._broken or ("connection-terminated", None)
        self._close()

    def _close(self) -> None:
        if self._dial is not None:
            self._dial.drop()
        self._wire.close()


@resource("future-incoming-response")
class FutureResponse(Waitable):
    """The response to a request, when it is there."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.taken = False

    def polls(self) -> Sequence[tuple[int, int]]:
        return self.call.polls()

    def ready(self) -> bool:
        return self.call.ready()

    @property
    def until(self) -> float | None:  # type: ignore[override]
        return self.call.until

    def close(self) -> None:
        if not self.taken:
            self.call.close()


def _fresh() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD)


def _seconds(nanoseconds: int | None) -> float:
    return _SECONDS if nanoseconds is None else min(nanoseconds / _NANO, _MOST_SECONDS)


@function("wasi:http/outgoing-handler.handle")
def _handle(instance: Instance, request: OutgoingRequest, options: RequestOptions | None) -> FutureResponse:
    call = Call(instance.host, request, options)
    if request.body is not None:
        with contextlib.suppress(Broken):  # the answer says so
            request.body.attach(call)
    return FutureResponse(call)


@function(f"{_TYPES}.[method]future-incoming-response.subscribe")
def _subscribe(instance: Instance, future: FutureResponse) -> Pollable:
    return Pollable(future)


@function(f"{_TYPES}.[method]future-incoming-response.get")
def _get(instance: Instance, future: FutureResponse) -> Any:
    if not future.ready():
        return None
    if future.taken:
        return False, None
    future.taken = True
    return True, future.call.answer
