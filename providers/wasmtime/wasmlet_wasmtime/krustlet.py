"""`wasi_experimental_http`: HTTP for modules of preview 1, as Krustlet's nodes had it. `hostcalls` calls these.

A request goes where the pod may dial, as those of components do (`p2.outgoing`): the call waits until the head of the
response is there. Its body comes as the module reads it. The module follows redirects by itself.

Source: `witx/wasi_experimental_http.witx` of deislabs/wasi-experimental-http, and the crate of that name, which writes
fields as lines of `name:value`.
"""

from __future__ import annotations

import functools
import re
import struct
import time
from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from .p2 import fields, http
from .p2.bodies import BodyInput, Broken, OutgoingBody
from .p2.dialing import Broker
from .p2.instances import Failed as Refused
from .p2.outgoing import Call
from .p2.pool import Pool
from .sockets import Failed, Network

SUCCESS, INVALID_HANDLE, _, MEMORY_ACCESS, BUFFER_TOO_SMALL, HEADER_NOT_FOUND, UTF8 = range(7)
DESTINATION_NOT_ALLOWED, INVALID_METHOD, INVALID_ENCODING, INVALID_URL, REQUEST, RUNTIME, TOO_MANY_SESSIONS = range(
    7, 14
)
MOST_RESPONSES = 64
"""That a guest has open at a time; each may hold a connection."""
_PART = 64 * 1024
"""Bytes of a body that are taken from the guest, or given to it, at once."""
_LONGEST_URL, _LONGEST_METHOD = 16 * 1024, 64
_METHOD = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_U16, _U32 = struct.Struct("<H"), struct.Struct("<I")


class Wrong(Exception):
    """A function for guests fails, and answers with this number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Response:
    """A response that the guest has a handle of."""

    def __init__(self, response: http.IncomingResponse) -> None:
        self.fields = [(name.lower(), value) for name, value in response.fields]
        self.body = BodyInput(response.feed)
        self.close = response.close


class Client:
    """The HTTP client of one guest: its connections and its responses.

    Args:
        network: its own.
    """

    def __init__(self, network: Network) -> None:
        self.broker, self.pool = Broker(network.broker), Pool()
        self.responses: dict[int, Response] = {}
        self.next = 0

    def find(self, handle: int) -> Response:
        """The response of this handle."""
        found = self.responses.get(handle)
        if found is None:
            raise Wrong(INVALID_HANDLE)
        return found

    def close(self) -> None:
        """Let go of all."""
        for response in self.responses.values():
            response.close()
        self.responses.clear()
        self.pool.close()


def client_of(network: Network) -> Client:
    """The guest's, made when it first asks for something."""
    if network.http is None:
        network.http = Client(network)
    found: Client = network.http
    return found


_Function = Callable[..., None]


def _answers(function: _Function) -> Callable[..., int]:
    """Make a function for guests, which returns an error number, from one that raises its errors."""

    @functools.wraps(function)
    def call(network: Network, *arguments: int) -> int:
        try:
            function(network, *arguments)
        except Wrong as error:
            return error.number
        except (Failed, struct.error):
            return MEMORY_ACCESS
        except Broken as error:
            return DESTINATION_NOT_ALLOWED if error.code[0] == "HTTP-request-denied" else REQUEST
        except Refused:  # of the interface of components
            return REQUEST
        except OSError:
            return RUNTIME
        return SUCCESS

    return call


class _Source(Protocol):
    @property
    def until(self) -> float | None: ...
    def polls(self) -> Sequence[tuple[int, int]]: ...
    def ready(self) -> bool: ...


def _wait(network: Network, source: _Source) -> None:
    """Wait until it is ready.

    Raises:
        Interrupted: the guest is to end.
    """
    while not source.ready():
        poller = network.poller()
        for descriptor, events in source.polls():
            poller.register(descriptor, events)
        until = source.until
        network.poll(poller, None if until is None else max(0.0, until - time.monotonic()))


def _text(network: Network, address: int, size: int) -> str:
    if address + size > network.size:
        raise Wrong(BUFFER_TOO_SMALL)
    try:
        return network.read(address, size).decode()
    except UnicodeDecodeError:
        raise Wrong(UTF8) from None


def _target(request: http.OutgoingRequest, url: str) -> None:
    """Have a request go there."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise Wrong(INVALID_URL) from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or not http.PATH.fullmatch(path):
        raise Wrong(INVALID_URL)
    request.scheme, request.authority, request.path = (parts.scheme.upper(), None), parts.netloc, path


def _fields(text: str) -> fields.Pairs:
    """The fields of lines of `name:value`."""
    found: fields.Pairs = []
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        found.append((name.strip(), value.strip().encode()))
        try:
            fields.check(found[-1][0], (found[-1][1],))
        except Refused:
            raise Wrong(INVALID_ENCODING) from None
        if not colon:
            raise Wrong(INVALID_ENCODING)
    if fields.size_of(found) > fields.MOST:
        raise Wrong(INVALID_ENCODING)
    return found


class _Room:
    """Waits until a request takes more of its body, or is answered without it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.polls = call.polls

    @property
    def until(self) -> float | None:
        return self._call.until

    def ready(self) -> bool:
        return self._call.ready() or self._call.room() > 0


@_answers
def http_req(
    network: Network,
    url: int, url_size: int, method: int, method_size: int,
    head: int, head_size: int, body: int, body_size: int,
    status: int, handle: int,
) -> None:  # fmt: skip
    """Send a request, and wait for the head of its response."""
    network.check(status, _U16.size)
    network.check(handle, _U32.size)
    client = client_of(network)
    if body + body_size > network.size or url_size > _LONGEST_URL or head_size > fields.MOST:
        raise Wrong(BUFFER_TOO_SMALL)
    name = _text(network, method, min(method_size, _LONGEST_METHOD))
    if not _METHOD.fullmatch(name):
        raise Wrong(INVALID_METHOD)
    request = http.OutgoingRequest(_fields(_text(network, head, head_size)))
    request.method = http.method_of(name)
    _target(request, _text(network, url, url_size))
    if len(client.responses) >= MOST_RESPONSES:
        raise Wrong(TOO_MANY_SESSIONS)
    response = _asked(network, client, request, (body, body_size))
    while client.next in client.responses:
        client.next = (client.next + 1) % 2**31
    client.responses[client.next] = Response(response)
    network.write(status, _U16.pack(response.status))
    network.put(handle, client.next)


def _asked(
    network: Network, client: Client, request: http.OutgoingRequest, body: tuple[int, int]
) -> http.IncomingResponse:
    """The response to a request whose body lies there in the guest's memory."""
    begin, size = body
    if size:
        if not any(name.lower() == "content-length" for name, _ in request.fields):
            request.fields.append(("content-length", str(size).encode()))
        request.body = OutgoingBody(size, "HTTP-request-body-size")
    call = Call(client, request, None)
    try:
        while size:
            _wait(network, _Room(call))
            part = min(call.room(), size, _PART)
            if not part:
                break  # it is answered already
            call.send(network.read(begin, part))
            begin, size = begin + part, size - part
        if not size and request.body is not None:
            call.end([])
        _wait(network, call)
        good, found = call.answer
        if not good:
            raise Broken(found)
    except BaseException:
        call.close()
        raise
    response: http.IncomingResponse = found
    return response


@_answers
def http_close(network: Network, handle: int) -> None:
    """Close a response. A handle that does not exist is no error."""
    response = client_of(network).responses.pop(handle, None)
    if response is not None:
        response.close()


def _give(network: Network, data: bytes, buffer: int, size: int, written: int) -> None:
    network.check(buffer, size)
    network.check(written, _U32.size)
    if len(data) > size:
        raise Wrong(BUFFER_TOO_SMALL)
    network.write(buffer, data)
    network.put(written, len(data))


@_answers
def http_header_get(
    network: Network, handle: int, name: int, name_size: int, buffer: int, size: int, written: int
) -> None:
    """The value of a field, the first of its name."""
    response = client_of(network).find(handle)
    wanted = _text(network, name, name_size).lower()
    found = next((value for key, value in response.fields if key == wanted), None)
    if found is None:
        raise Wrong(HEADER_NOT_FOUND)
    _give(network, found, buffer, size, written)


@_answers
def http_headers_get_all(network: Network, handle: int, buffer: int, size: int, written: int) -> None:
    """All fields, as lines of `name:value`."""
    response = client_of(network).find(handle)
    lines = b"".join(name.encode() + b":" + value + b"\n" for name, value in response.fields)
    _give(network, lines, buffer, size, written)


@_answers
def http_body_read(network: Network, handle: int, buffer: int, size: int, written: int) -> None:
    """Read as much of the body as the buffer holds. It is less only at the end of the body, and 0 after that."""
    response = client_of(network).find(handle)
    network.check(buffer, size)
    network.check(written, _U32.size)
    total = 0
    while total < size:
        _wait(network, response.body)
        try:
            part = response.body.read(min(size - total, _PART))
        except Refused as error:
            if error.payload[0] != "closed":
                raise
            break
        network.write(buffer + total, part)
        total += len(part)
    network.put(written, total)
