"""SPDY/3.1 on the wire: the parts of a frame, and header blocks, which one zlib stream per direction compresses.

SPDY/3.1 (https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/) is what `kubectl exec`, `attach` and
`port-forward` speak to a kubelet since the beginning, and what an API server speaks to it for them.
`wasmlet.kubelet.spdy` makes a connection of this.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from enum import IntEnum

import attrs

VERSION = 3
HEAD = struct.Struct(">II")
"""Control: version and type, then flags and length. Data: the stream, then flags and length."""
CONTROL = 0x8000_0000
LENGTH = 0x00FF_FFFF
FIN = 0x01
UNIDIRECTIONAL = 0x02
WORD = struct.Struct(">I")
PAIR = struct.Struct(">II")
SYN_STREAM_HEAD = struct.Struct(">IIBB")
"""Stream, the stream that it belongs to, priority, and a slot for credentials that nobody uses."""


class Type(IntEnum):
    """Types of control frames; any other is passed over."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class Reset(IntEnum):
    """Why a stream was ended before its time."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    UNSUPPORTED_VERSION = 4
    CANCEL = 5
    INTERNAL_ERROR = 6
    FLOW_CONTROL_ERROR = 7
    STREAM_IN_USE = 8
    STREAM_ALREADY_CLOSED = 9
    FRAME_TOO_LARGE = 11


class Away(IntEnum):
    """Why a connection ends."""

    OK = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


class SpdyError(Exception):
    """Everything that this module and `wasmlet.kubelet.spdy` raise."""


class ProtocolError(SpdyError):
    """The peer does not keep to SPDY/3.1, or to this side's limits; the connection cannot go on."""


@attrs.frozen
class Limits:
    """What a peer may ask of this side.

    Attributes:
        control_bytes: of one control frame, as sent. Data frames need no limit: they are handed on as they come.
        header_bytes: of one header block, unpacked.
        headers: in one block.
        open_streams: at a time; what is above is refused, and the connection goes on.
        streams: in a connection's life.
    """

    control_bytes: int = 64 * 1024
    header_bytes: int = 64 * 1024
    headers: int = 100
    open_streams: int = 1024
    streams: int = 0x3FFF_FFFF


# The dictionary of the specification, section 2.6.10.1: words with their length in front of each, then a run of text.
_WORDS = """
options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
authorization cache-control connection content-base content-encoding content-language content-length content-location
content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match
if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range
referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get
status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin
"""
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(WORD.pack(len(word)) + word.replace("_", " ").encode() for word in _WORDS.split()) + _TEXT.encode()
)


def control(kind: Type, payload: bytes, flags: int = 0) -> bytes:
    return HEAD.pack(CONTROL | VERSION << 16 | kind, flags << 24 | len(payload)) + payload


class HeaderWriter:
    """Packs the header blocks of one direction."""

    def __init__(self) -> None:
        # A small window is enough for headers, and a connection costs 10 KiB with it instead of 256.
        self._zlib = zlib.compressobj(wbits=11, memLevel=1, zdict=DICTIONARY)

    def pack(self, headers: Mapping[str, str]) -> bytes:
        block = bytearray(WORD.pack(len(headers)))
        for name, value in headers.items():
            for text in (name.lower(), value):
                raw = text.encode("utf-8", "surrogateescape")
                block += WORD.pack(len(raw)) + raw
        return self._zlib.compress(bytes(block)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class HeaderReader:
    """Unpacks the header blocks of one direction. After an error it must not be used again."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def unpack(self, packed: bytes) -> dict[str, str]:
        """Name, in lower case, to value; of several values, which NUL separates, the first.

        Raises:
            ProtocolError: this is not a header block, or it is larger than the limits allow.
        """
        most = self._limits.header_bytes
        try:
            block = self._zlib.decompress(packed, most + 1)
        except zlib.error as error:
            raise ProtocolError(f"expected a header block packed by zlib, found something else ({error})") from None
        if len(block) > most:
            raise ProtocolError(f"expected at most {most} bytes of headers, found more")
        if self._zlib.eof:
            raise ProtocolError("expected one zlib stream for all headers of the connection, found its end")
        return self._headers(block)

    def _headers(self, block: bytes) -> dict[str, str]:
        at = 0

        def number() -> int:
            nonlocal at
            if at + 4 > len(block):
                raise ProtocolError("a header block ends before its last header")
            at += 4
            return int.from_bytes(block[at - 4 : at], "big")

        def text() -> str:
            nonlocal at
            length = number()
            if length > len(block) - at:
                raise ProtocolError(f"a header of {length} bytes does not fit into its block")
            at += length
            return block[at - length : at].decode("utf-8", "surrogateescape")

        count = number()
        if count > self._limits.headers:
            raise ProtocolError(f"expected at most {self._limits.headers} headers, found {count}")
        headers: dict[str, str] = {}
        for _ in range(count):
            name, value = text(), text()
            if not name or name != name.lower() or name in headers:
                raise ProtocolError("a header's name is empty, not in lower case, or there twice")
            headers[name] = value.partition("\0")[0]
        if at != len(block):
            raise ProtocolError(f"expected the end of a header block, found {len(block) - at} more bytes")
        return headers
