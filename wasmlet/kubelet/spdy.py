"""A SPDY/3.1 connection without a socket: bytes in, events out, bytes to send.

    spdy = Connection(client=False)
    for event in spdy.receive_data(data):
        match event:
            case StreamOpened(stream, headers): spdy.reply(stream)
            case DataReceived(stream, data): spdy.send_data(stream, data)
    write(spdy.data_to_send())

Both roles are here: the node is a server; the API server, which passes on what kubectl asks, is a client. There is no
flow control, as neither kubectl nor a kubelet uses it: the owner of the socket stops reading instead. What this side
sends without being told to (answers to pings, refusals) is never more than what it received.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from wasmlet.kubelet import spdy_frames as frames
from wasmlet.kubelet.spdy_frames import (
    Away,
    HeaderReader,
    HeaderWriter,
    Limits,
    ProtocolError,
    Reset,
    SpdyError,
    Type,
)

DATA_BYTES = 32 * 1024
"""How much a data frame carries: streams take turns, and a reader need not hold much at a time."""


@attrs.frozen
class StreamOpened:
    """The peer has opened a stream, and waits for `reply` or `reset`."""

    stream: int
    headers: Mapping[str, str]


@attrs.frozen
class StreamReplied:
    """The peer has accepted a stream of ours."""

    stream: int
    headers: Mapping[str, str]


@attrs.frozen
class DataReceived:
    """Bytes of a stream, never none; one data frame may come as several of these."""

    stream: int
    data: bytes


@attrs.frozen
class StreamEnded:
    """The peer sends no more on this stream; it still reads."""

    stream: int


@attrs.frozen
class StreamReset:
    """The stream is over in both directions."""

    stream: int
    status: int


@attrs.frozen
class PingReceived:
    """The peer asked whether we are there; the answer waits in `data_to_send`."""

    number: int


@attrs.frozen
class PongReceived:
    """The answer to our ping of this number."""

    number: int


@attrs.frozen
class WentAway:
    """The peer opens no more streams and takes no more; those that are open may go on."""

    last_stream: int
    status: int


Event = StreamOpened | StreamReplied | DataReceived | StreamEnded | StreamReset | PingReceived | PongReceived | WentAway


class StreamClosed(SpdyError):
    """The stream is not open for sending: it was ended, reset, or is not known."""


@attrs.define
class _Stream:
    """Which directions are open."""

    sends: bool = True
    receives: bool = True


class Connection:
    """One side of a connection.

    Methods that send only add to what `data_to_send` gives. `open_stream` and `reply` raise `UnicodeEncodeError` for
    headers that are no text; the rest raise `StreamClosed` for a stream that is not open.
    """

    def __init__(self, *, client: bool, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.failed: ProtocolError | None = None
        self.gone = False
        """The peer went away: it takes no new streams."""
        self._own = 1 if client else 0
        self._next_stream = 1 if client else 2
        self._next_ping = 1 if client else 2
        self._newest = 0
        """The last stream that the peer has opened."""
        self._opened = 0
        self._streams: dict[int, _Stream] = {}
        self._theirs = 0
        """How many of the open streams are the peer's."""
        self._in = bytearray()
        self._out = bytearray()
        self._data_left = 0
        """How many bytes of a data frame are still to come, with its stream and flags."""
        self._data_stream = 0
        self._data_flags = 0
        self._pack = HeaderWriter().pack
        self._unpack = HeaderReader(self.limits).unpack

    # --- receiving

    def receive_data(self, data: bytes) -> list[Event]:
        """What the peer's bytes mean. They may be split anywhere; at most one control frame is held back.

        Raises:
            ProtocolError: the connection is over. `data_to_send` has the GOAWAY that tells the peer so. Every later
                call raises the same.
        """
        if self.failed is not None:
            raise self.failed
        self._in += data
        events: list[Event] = []
        at = 0
        try:
            while True:
                if self._data_left:
                    piece = bytes(self._in[at : at + self._data_left])
                    if not piece:
                        break
                    at += len(piece)
                    self._data_left -= len(piece)
                    self._on_data(piece, events)
                    continue
                if len(self._in) - at < 8:
                    break
                word, second = frames.HEAD.unpack_from(self._in, at)
                flags, length = second >> 24, second & frames.LENGTH
                if not word & frames.CONTROL:
                    at += 8
                    self._begin_data(word, flags, length, events)
                    continue
                if word >> 16 & 0x7FFF != frames.VERSION:
                    raise ProtocolError(f"expected frames of SPDY version 3, found version {word >> 16 & 0x7FFF}")
                if length > self.limits.control_bytes:
                    raise ProtocolError(
                        f"expected control frames of at most {self.limits.control_bytes} bytes, found {length}"
                    )
                if len(self._in) - at < 8 + length:
                    break
                payload = bytes(self._in[at + 8 : at + 8 + length])
                at += 8 + length
                self._on_control(word & 0xFFFF, flags, payload, events)
        except ProtocolError as error:
            self.failed = error
            self.go_away(Away.PROTOCOL_ERROR)
            self._streams.clear()
            self._in.clear()
            raise
        del self._in[:at]
        return events

    def _begin_data(self, stream: int, flags: int, length: int, events: list[Event]) -> None:
        self._check_known(stream)
        self._data_stream, self._data_flags, self._data_left = stream, flags, length
        if not length and flags & frames.FIN:
            self._on_end(stream, events)

    def _on_data(self, piece: bytes, events: list[Event]) -> None:
        number = self._data_stream
        stream = self._streams.get(number)
        if stream is not None:
            if not stream.receives:
                self._reset(number, Reset.STREAM_ALREADY_CLOSED)
                events.append(StreamReset(number, Reset.STREAM_ALREADY_CLOSED))
                return
            events.append(DataReceived(number, piece))
        # What is left belongs to a stream that was reset while the data was under way.
        if not self._data_left and self._data_flags & frames.FIN:
            self._on_end(number, events)

    def _on_end(self, number: int, events: list[Event]) -> None:
        stream = self._streams.get(number)
        if stream is not None and stream.receives:
            stream.receives = False
            self._forget_closed(number, stream)
            events.append(StreamEnded(number))

    def _on_control(self, kind: int, flags: int, payload: bytes, events: list[Event]) -> None:
        match kind:
            case Type.SYN_STREAM:
                _expect_length(kind, payload, 10, more=True)
                number = frames.SYN_STREAM_HEAD.unpack_from(payload)[0] & ~frames.CONTROL
                self._on_open(number, flags, self._unpack(payload[10:]), events)
            case Type.SYN_REPLY | Type.HEADERS:
                _expect_length(kind, payload, 4, more=True)
                number = frames.WORD.unpack_from(payload)[0] & ~frames.CONTROL
                headers = self._unpack(payload[4:])
                self._check_known(number)
                if kind == Type.SYN_REPLY and number in self._streams:
                    events.append(StreamReplied(number, headers))
                if flags & frames.FIN:
                    self._on_end(number, events)
            case Type.RST_STREAM:
                number, status = _pair(kind, payload)
                self._check_known(number & ~frames.CONTROL)
                if self._forget(number & ~frames.CONTROL):
                    events.append(StreamReset(number & ~frames.CONTROL, status))
            case Type.PING:
                _expect_length(kind, payload, 4)
                (number,) = frames.WORD.unpack(payload)
                if number % 2 != self._own:
                    self._out += frames.control(Type.PING, payload)
                    events.append(PingReceived(number))
                else:
                    events.append(PongReceived(number))
            case Type.GOAWAY:
                last, status = _pair(kind, payload)
                self.gone = True
                events.append(WentAway(last & ~frames.CONTROL, status))
            case Type.WINDOW_UPDATE:
                _pair(kind, payload)
            case Type.SETTINGS:
                _expect_length(kind, payload, 4, more=True)
                if len(payload) != 4 + 8 * frames.WORD.unpack_from(payload)[0]:
                    raise ProtocolError("a SETTINGS frame is not as long as it says")

    def _on_open(self, number: int, flags: int, headers: dict[str, str], events: list[Event]) -> None:
        if number % 2 == self._own or number <= self._newest:
            raise ProtocolError(f"stream {number} cannot be opened after stream {self._newest} by this side")
        self._newest = number
        self._opened += 1
        if self._opened > self.limits.streams:
            raise ProtocolError(f"expected at most {self.limits.streams} streams, found more")
        if self._theirs >= self.limits.open_streams:
            self._send_reset(number, Reset.REFUSED_STREAM)
            return
        self._streams[number] = stream = _Stream(sends=not flags & frames.UNIDIRECTIONAL)
        self._theirs += 1
        events.append(StreamOpened(number, headers))
        if flags & frames.FIN:
            stream.receives = False
            self._forget_closed(number, stream)
            events.append(StreamEnded(number))

    def _check_known(self, number: int) -> None:
        """Refuse a frame about a stream that was never opened. A frame about a closed stream is allowed."""
        own = number % 2 == self._own
        if number == 0 or number > (self._next_stream - 2 if own else self._newest):
            raise ProtocolError(f"expected frames of streams that were opened, found one of stream {number}")

    # --- sending

    @property
    def waiting(self) -> int:
        """How many bytes `data_to_send` would give."""
        return len(self._out)

    def __contains__(self, stream: int) -> bool:
        """Whether the stream is open in at least one direction."""
        return stream in self._streams

    def data_to_send(self) -> bytes:
        """What is to be written to the peer, once."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def open_stream(self, headers: Mapping[str, str], *, end: bool = False) -> int:
        """Open a stream, which the peer accepts or resets. Returns its number. With `end`, nothing is sent on it."""
        if self.gone or self.failed is not None:
            raise StreamClosed("the peer takes no more streams")
        number = self._next_stream
        self._next_stream += 2
        self._streams[number] = _Stream(sends=not end)
        payload = frames.SYN_STREAM_HEAD.pack(number, 0, 0, 0) + self._pack(headers)
        self._out += frames.control(Type.SYN_STREAM, payload, frames.FIN if end else 0)
        return number

    def reply(self, stream: int, headers: Mapping[str, str] | None = None) -> None:
        """Accept a stream that the peer has opened; before any data is sent on it."""
        self._sending(stream)
        self._out += frames.control(Type.SYN_REPLY, frames.WORD.pack(stream) + self._pack(headers or {}))

    def send_data(self, stream: int, data: bytes) -> None:
        """Send bytes; they are not copied more than once, and not held back."""
        self._sending(stream)
        for at in range(0, len(data), DATA_BYTES):
            piece = data[at : at + DATA_BYTES]
            self._out += frames.HEAD.pack(stream, len(piece))
            self._out += piece

    def end(self, stream: int) -> None:
        """Send no more on this stream; the peer may."""
        state = self._sending(stream)
        self._out += frames.HEAD.pack(stream, frames.FIN << 24)
        state.sends = False
        self._forget_closed(stream, state)

    def reset(self, stream: int, status: int = Reset.CANCEL) -> None:
        """End the stream in both directions. One that is closed already stays so."""
        if stream in self._streams:
            self._reset(stream, status)

    def ping(self) -> int:
        """Ask whether the peer is there. Returns the number that `PongReceived` will have."""
        number = self._next_ping
        self._next_ping = (number + 2) & 0x7FFF_FFFF
        self._out += frames.control(Type.PING, frames.WORD.pack(number))
        return number

    def beat(self) -> None:
        """Send something that a peer ignores (SETTINGS without any setting), to find out whether the peer is gone."""
        self._out += frames.control(Type.SETTINGS, frames.WORD.pack(0))

    def go_away(self, status: int = Away.OK) -> None:
        """Say that no more streams are taken."""
        self._out += frames.control(Type.GOAWAY, frames.PAIR.pack(self._newest, status))

    def _sending(self, number: int) -> _Stream:
        stream = self._streams.get(number)
        if stream is None or not stream.sends:
            raise StreamClosed(f"stream {number} is not open for sending")
        return stream

    def _reset(self, number: int, status: int) -> None:
        self._forget(number)
        self._send_reset(number, status)

    def _send_reset(self, number: int, status: int) -> None:
        self._out += frames.control(Type.RST_STREAM, frames.PAIR.pack(number, status))

    def _forget_closed(self, number: int, stream: _Stream) -> None:
        if not stream.sends and not stream.receives:
            self._forget(number)

    def _forget(self, number: int) -> bool:
        if self._streams.pop(number, None) is None:
            return False
        if number % 2 != self._own:
            self._theirs -= 1
        return True


def _expect_length(kind: int, payload: bytes, length: int, *, more: bool = False) -> None:
    if len(payload) < length or (len(payload) > length and not more):
        raise ProtocolError(f"expected {length} bytes in a frame of type {Type(kind).name}, found {len(payload)}")


def _pair(kind: int, payload: bytes) -> tuple[int, int]:
    _expect_length(kind, payload, 8)
    first, second = frames.PAIR.unpack(payload)
    return first, second
