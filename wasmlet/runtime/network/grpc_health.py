"""gRPC health checks (`grpc.health.v1.Health/Check`): one call over HTTP/2 without TLS, as a kubelet makes it.

The messages of this service have one field each, so no gRPC or protobuf library is needed, only one for HTTP/2.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence

import attrs
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error

from wasmlet.runtime.network.dialing import Place, hang_up
from wasmlet.runtime.network.http_get import KUBERNETES, NoAnswer

SERVING = "SERVING"
_STATUSES = ("UNKNOWN", SERVING, "NOT_SERVING", "SERVICE_UNKNOWN")
_OK, _UNIMPLEMENTED = "0", "12"
_MAX_MESSAGE = 4096
"""Bytes of an answer; a right one has two and five in front."""
_CHUNK = 65536


class NotImplementedThere(NoAnswer):
    """The server has no health service."""


@attrs.define
class _Call:
    """What has come of one call."""

    status: str | None = None
    message: str = ""
    data: bytes = b""
    ended: bool = False

    def take(self, event: Event) -> None:
        if isinstance(event, (ResponseReceived, TrailersReceived)):
            self._headers([(bytes(name), bytes(value)) for name, value in event.headers])
        elif isinstance(event, DataReceived):
            self.data += event.data
            if len(self.data) > _MAX_MESSAGE:
                raise NoAnswer(f"the answer is longer than {_MAX_MESSAGE} bytes")
        elif isinstance(event, StreamEnded):
            self.ended = True
        elif isinstance(event, (StreamReset, ConnectionTerminated)):
            code = event.error_code
            name = code.name if isinstance(code, ErrorCodes) else str(code)
            raise NoAnswer(f"the server ended the call: {name}")

    def _headers(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        for name, value in headers:
            text = value.decode("utf-8", "replace")
            if name == b":status" and text != "200":
                raise NoAnswer(f"expected an answer of gRPC, found HTTP status {text[:10]}")
            if name == b"grpc-status":
                self.status = text[:10]
            elif name == b"grpc-message":
                self.message = text[:300]


async def check(place: Place, port: int, service: str) -> str:
    """Ask how a service is. The caller bounds how long it may take.

    Args:
        place: the pod.
        service: of the request; "" for the server as a whole.

    Returns:
        The name of its status: `SERVING`, `NOT_SERVING`, ...

    Raises:
        NotImplementedThere: the server has no health service.
        NoAnswer: there was no answer, or none of gRPC.
        OSError: nobody listens there.
    """
    place.check(port)
    reader, writer = await asyncio.open_connection(place.address, port)
    try:
        call = await _call(reader, writer, service)
    except H2Error as error:
        raise NoAnswer(f"the server does not speak HTTP/2: {str(error)[:200]}") from error
    finally:
        await hang_up(writer)
    if call.status == _UNIMPLEMENTED:
        raise NotImplementedThere(call.message)
    if call.status != _OK:
        raise NoAnswer(f"rpc error: code = {call.status or 'Unknown'} desc = {call.message}")
    return _status(call.data)


async def _call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: str) -> _Call:
    connection = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    connection.initiate_connection()
    stream = connection.get_next_available_stream_id()
    connection.send_headers(stream, [
        (":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Check"), (":authority", "pod"),
        ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", f"kube-probe/{KUBERNETES}"),
    ])  # fmt: skip
    connection.send_data(stream, _request(service), end_stream=True)
    call = _Call()
    while not call.ended:
        writer.write(connection.data_to_send())
        await writer.drain()
        received = await reader.read(_CHUNK)
        if not received:
            raise NoAnswer("the server closed the connection")
        for event in connection.receive_data(received):
            call.take(event)
    return call


def _request(service: str) -> bytes:
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return struct.pack(">BI", 0, len(message)) + message


def _varint(number: int) -> bytes:
    found = b""
    while number > 0x7F:
        found, number = found + bytes([number & 0x7F | 0x80]), number >> 7
    return found + bytes([number])


def _status(data: bytes) -> str:
    """The one field of the answer; a field that is left out is 0."""
    if len(data) < 5 or data[0] or int.from_bytes(data[1:5], "big") != len(data) - 5:
        raise NoAnswer("the answer is no message of gRPC")
    message = data[5:]
    number = message[1] if len(message) >= 2 and message[0] == 0x08 else 0
    return _STATUSES[number] if number < len(_STATUSES) else str(number)
