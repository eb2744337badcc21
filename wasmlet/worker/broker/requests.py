"""Parses the requests of guests (`packets`), checks their fields, and makes the packets that refuse a request."""

from __future__ import annotations

import errno
import socket
from typing import Any

from .. import packets, wire
from ..grants import TCP, UDP
from . import dns

_MAX_WHY = 500


class Refused(Exception):
    """A request is refused: it is answered with this errno and this reason."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


def parsed(data: bytes, flags: int) -> tuple[int, wire.Message]:
    """Parse a packet. Returns the number of the request, and the request."""
    if flags & socket.MSG_TRUNC:
        raise Refused(errno.EPROTO, f"a packet is longer than {packets.MAX_PACKET} bytes")
    try:
        request = wire.unpack(data)
    except wire.WireError:
        raise Refused(errno.EPROTO, "a packet is no JSON object") from None
    number = request.get("n")
    if type(number) is not int or not 0 <= number < 1 << 53:
        raise Refused(errno.EPROTO, "a request has no number")
    return number, request


def refusal(number: Any, error: int, why: str) -> bytes:
    """The packet that answers a request with this errno."""
    name = errno.errorcode.get(error, "EIO")
    return wire.pack({"re": number, "error": name, "why": why[:_MAX_WHY]})


def port_of(request: wire.Message) -> int:
    port = request.get("port")
    if type(port) is not int or not 0 < port < 65536:
        raise Refused(errno.EPROTO, "expected a port from 1 to 65535")
    return port


def protocol_of(request: wire.Message) -> str:
    protocol = request.get("protocol", TCP)
    if protocol not in (TCP, UDP):
        raise Refused(errno.EPROTO, f"expected protocol {TCP} or {UDP}")
    return str(protocol)


def text_of(request: wire.Message, field: str) -> str:
    text = request.get(field)
    if not isinstance(text, str) or not 0 < len(text) <= 2 * dns.MAX_NAME:
        raise Refused(errno.EPROTO, f"expected a {field} of at most {2 * dns.MAX_NAME} characters")
    return text
