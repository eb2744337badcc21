"""wasi:http/outgoing-handler: requests of a guest, to where its pod may dial.

The broker dials (`dialing`), so a guest reaches what its pod was granted. TLS is verified against the authorities that
the system trusts; they are loaded in the zygote, because a confined process reads no file. Each request has a
connection of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import ssl
import time
from collections.abc import Sequence
from typing import Any

import h11

from .bodies import Broken, ErrorCode
from .dialing import Dial, code_of
from .fields import Pairs, encoded, is_forbidden
from .http import IncomingResponse, OutgoingRequest, RequestOptions, method_text
from .instances import Failed, Instance, resource
from .streams import ROOM, Pollable, Waitable
from .world import function

_TYPES = "wasi:http/types"
_READ = 64 * 1024
_HEAD = 64 * 1024
"""Bytes of a response's head, at most."""
_PORTS = {"HTTP": 80, "HTTPS": 443}
_SECONDS = 60.0
"""How long each part of a request may take, where the guest does not say it."""
_MOST_SECONDS = 3600.0
_NANO = 1_000_000_000
_AUTHORITY = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[-A-Za-z0-9._~%!$&'()*+,;=]+))(?::(?P<port>[0-9]{1,5}))?"
)

_trusted: list[ssl.SSLContext] = []


def prepare() -> None:
    """In the zygote: load what the system trusts."""
    if not _trusted:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        # What Python loads only when a name is given, it could not load in a child.
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="example.com")
        _trusted.append(context)


class Call(Waitable):
    """A request on its way, and the response to it (`bodies.Sink`, `bodies.Feed`). It never waits.

    Raises:
        Failed: it cannot be sent as it is; an error-code.
    """

    def __init__(self, instance: Instance, request: OutgoingRequest, options: RequestOptions | None) -> None:
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
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD)
        self._tls: ssl.SSLObject | None = None
        self._in, self._wire = ssl.MemoryBIO(), ssl.MemoryBIO()
        if scheme == "HTTPS":
            prepare()
            self._tls = _trusted[0].wrap_bio(self._in, self._wire, server_hostname=host)
        self._shaken = self._tls is None
        self._descriptor = -1
        self._plain, self._out = bytearray(), bytearray()
        self._closed = False
        self._begun = self._over = self._ended = self._read_over = False
        self._held: list[bytes] = []
        self._size = 0
        self._end_trailers: Pairs = []
        self._trailers: Pairs = []
        self._broken: ErrorCode | None = None
        self._answer: Any = None
        self._time("connection-timeout", self._connect)
        self._dial = Dial(instance.host.broker, host, port)

    def _time(self, code: str, seconds: float) -> None:
        """From now on it may take so long until something happens."""
        self._late: ErrorCode = (code, None)
        self.until = time.monotonic() + seconds

    @property
    def read_until(self) -> float | None:
        """See `bodies.Feed`."""
        return self.until

    # What is waited for.

    def polls(self) -> Sequence[tuple[int, int]]:
        if self._descriptor < 0:
            return self._dial.polls()
        return ((self._descriptor, select.POLLIN | (select.POLLOUT if self._out else 0)),)

    reads = writes = polls

    def ready(self) -> bool:
        """Whether there is an answer: a response or why there is none."""
        if self._answer is None:
            try:
                self._advance()
                response = self._response() if self._shaken and self._begun else None
            except Broken as error:
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
        """Go as far as it goes."""
        if self._broken is not None:
            raise Broken(self._broken)
        if self.until is not None and time.monotonic() >= self.until:
            raise Broken(self._late)
        if self._descriptor < 0:
            answer = self._dial.answer()
            if answer is None:
                return
            if answer.error:
                raise Broken(code_of(answer.error))
            (self._descriptor,) = self._dial.take()
            self._dial.drop()
            self._time("HTTP-response-timeout", self._first)
        if not self._shaken:
            self._shake()
        if self._shaken:
            self._encode()
        self._write()

    def _shake(self) -> None:
        assert self._tls is not None
        while True:
            try:
                self._tls.do_handshake()
                self._shaken = True
                return
            except ssl.SSLWantReadError:
                self._write()
                if not self._fill():
                    return
            except ssl.SSLCertVerificationError:
                self._write_last()
                raise Broken(("TLS-certificate-error", None)) from None
            except ssl.SSLError:
                raise Broken(("TLS-protocol-error", None)) from None

    def _write_last(self) -> None:
        with contextlib.suppress(Broken):
            self._write()

    def _fill(self) -> bool:
        """Read what has come from the network; False where that is nothing."""
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return False
        except OSError:
            raise Broken(("connection-terminated", None)) from None
        self._closed = not data
        if self._tls is None:
            self._protocol.receive_data(data)
            return True
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()
        return True

    def _more(self) -> bool:
        """Give the protocol what has come; False where that is nothing."""
        if self._tls is None:
            return self._fill()
        while True:
            try:
                self._protocol.receive_data(self._tls.read(_READ))
                return True
            except ssl.SSLWantReadError:
                if not self._fill():
                    return False
            except ssl.SSLZeroReturnError:
                self._protocol.receive_data(b"")
                return True
            except ssl.SSLError:  # the connection has ended without saying so, too
                raise Broken(("connection-terminated", None)) from None

    def _write(self) -> None:
        if self._tls is not None:
            if self._plain and self._shaken:
                self._tls.write(self._plain)
                self._plain.clear()
            self._out += self._wire.read()
        else:
            self._out += self._plain
            self._plain.clear()
        try:
            while self._out:
                del self._out[: os.write(self._descriptor, self._out)]
        except BlockingIOError:
            pass
        except OSError:
            # The server may have said why before it closed.
            self._out.clear()

    # The request.

    def room(self) -> int:
        """See `bodies.Sink`."""
        self._pump()
        if self._over:
            return 0
        return max(0, ROOM - self._size - len(self._plain) - len(self._out))

    def send(self, data: bytes) -> None:
        """See `bodies.Sink`."""
        self._held.append(data)
        self._size += len(data)
        self._pump()

    def push(self) -> None:
        """See `bodies.Sink`."""
        self._pump()

    def sent(self) -> bool:
        """See `bodies.Sink`. As long as there is no connection, it waits for nothing."""
        self._pump()
        return self._descriptor < 0 or not (self._out or self._held)

    def end(self, trailers: Pairs) -> None:
        """See `bodies.Sink`."""
        self._ended, self._end_trailers = True, trailers
        with contextlib.suppress(Broken):  # the answer says so
            self._pump()

    def abandon(self) -> None:
        """See `bodies.Sink`."""
        self._fail(("HTTP-protocol-error", None))

    def _pump(self) -> None:
        if self._read_over:
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
                self._plain += self._protocol.send(h11.Data(data=b"".join(held))) or b""
            if self._ended and not self._over:
                self._over = True
                trailers = self._end_trailers if self._chunked else []
                self._plain += self._protocol.send(h11.EndOfMessage(headers=encoded(trailers))) or b""
        except h11.LocalProtocolError:
            if self._protocol.their_state is h11.ERROR or self._answer is not None:
                self._held.clear()  # the answer came before the request's end, which nobody wants any more
                return
            raise Broken(("HTTP-protocol-error", None)) from None

    def _begin(self) -> None:
        request = self._request
        method = method_text(request.method)
        fields: list[tuple[str, Any]] = [("host", self._host), ("connection", "close"), *request.fields]
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
        self._plain += self._protocol.send(head) or b""

    # The response.

    def _event(self) -> Any:
        """The next event; None where nothing has come."""
        while True:
            try:
                event = self._protocol.next_event()
            except h11.RemoteProtocolError:
                code = "HTTP-response-incomplete" if self._closed else "HTTP-protocol-error"
                raise Broken((code, None)) from None
            if event is h11.NEED_DATA:
                if not self._more():
                    return None
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
        self._close()
        return None

    @property
    def trailers(self) -> Pairs:
        """See `bodies.Feed`."""
        return self._trailers

    def close(self) -> None:
        """See `bodies.Feed`."""
        self._broken = self._broken or ("connection-terminated", None)
        self._close()

    def _close(self) -> None:
        self._dial.drop()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


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


def _seconds(nanoseconds: int | None) -> float:
    return _SECONDS if nanoseconds is None else min(nanoseconds / _NANO, _MOST_SECONDS)


@function("wasi:http/outgoing-handler.handle")
def _handle(instance: Instance, request: OutgoingRequest, options: RequestOptions | None) -> FutureResponse:
    call = Call(instance, request, options)
    if request.body is not None:
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
