"""SPDY/3.1 without a socket: what is sent arrives, and what is no SPDY does no harm."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlet.kubelet import spdy_frames as frames
from wasmlet.kubelet.spdy import (
    Connection,
    DataReceived,
    Event,
    PingReceived,
    PongReceived,
    StreamClosed,
    StreamEnded,
    StreamOpened,
    StreamReplied,
    StreamReset,
    WentAway,
)
from wasmlet.kubelet.spdy_frames import DICTIONARY, Away, Limits, ProtocolError, Reset, Type

SMALL = Limits(control_bytes=2048, header_bytes=4096, headers=8, open_streams=4, streams=1000)


def pair(limits: Limits | None = None) -> tuple[Connection, Connection]:
    return Connection(client=True), Connection(client=False, limits=limits)


def joined(events: Iterable[Event]) -> list[Event]:
    """The same with neighbouring pieces of one stream put together."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, DataReceived) and isinstance(last, DataReceived) and last.stream == event.stream:
            out[-1] = DataReceived(event.stream, last.data + event.data)
        else:
            out.append(event)
    return out


def syn(stream: int, packed: bytes, flags: int = 0) -> bytes:
    return frames.control(Type.SYN_STREAM, frames.SYN_STREAM_HEAD.pack(stream, 0, 0, 0) + packed, flags)


def gone_away(server: Connection) -> bool:
    """Whether the last thing that waits to be sent is a GOAWAY that says why."""
    last, status = frames.PAIR.unpack(server.data_to_send()[-8:])
    return bool(status == Away.PROTOCOL_ERROR and last >= 0)


def test_the_dictionary_is_the_one_of_the_specification() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_a_stream_from_its_opening_to_its_end() -> None:
    client, server = pair()
    one = client.open_stream({"streamType": "stdin", "Port": "80"})
    two = client.open_stream({"streamType": "stdout"}, end=True)
    assert (one, two) == (1, 3)
    assert server.receive_data(client.data_to_send()) == [
        StreamOpened(1, {"streamtype": "stdin", "port": "80"}),
        StreamOpened(3, {"streamtype": "stdout"}),
        StreamEnded(3),
    ]
    server.reply(1)
    server.reply(3, {"answer": "yes"})
    server.send_data(3, b"hello")
    server.end(3)
    assert client.receive_data(server.data_to_send()) == [
        StreamReplied(1, {}),
        StreamReplied(3, {"answer": "yes"}),
        DataReceived(3, b"hello"),
        StreamEnded(3),
    ]
    client.send_data(1, b"x" * 100_000)
    client.end(1)
    events = server.receive_data(client.data_to_send())
    assert joined(events) == [DataReceived(1, b"x" * 100_000), StreamEnded(1)]
    assert max(len(event.data) for event in events if isinstance(event, DataReceived)) <= 32 * 1024


def test_each_direction_closes_by_itself() -> None:
    client, server = pair()
    stream = client.open_stream({})
    client.end(stream)
    with pytest.raises(StreamClosed):
        client.send_data(stream, b"too late")
    server.receive_data(client.data_to_send())
    server.reply(stream)
    server.send_data(stream, b"still")
    assert client.receive_data(server.data_to_send())[-1] == DataReceived(stream, b"still")
    server.end(stream)
    with pytest.raises(StreamClosed):
        server.send_data(stream, b"too late")


def test_a_reset_ends_both_directions_and_what_was_under_way_is_dropped() -> None:
    client, server = pair()
    stream = client.open_stream({})
    server.receive_data(client.data_to_send())
    server.reset(stream, Reset.REFUSED_STREAM)
    client.send_data(stream, b"crossing")
    client.end(stream)
    assert server.receive_data(client.data_to_send()) == []
    assert client.receive_data(server.data_to_send()) == [StreamReset(stream, Reset.REFUSED_STREAM)]
    client.reset(stream)
    assert client.data_to_send() == b""


def test_data_after_its_end_resets_the_stream() -> None:
    client, server = pair()
    stream = client.open_stream({}, end=True)
    late = frames.HEAD.pack(stream, 4) + b"late"
    server.receive_data(client.data_to_send())
    assert server.receive_data(late) == [StreamReset(stream, Reset.STREAM_ALREADY_CLOSED)]
    assert server.receive_data(late) == []


def test_pings_are_answered_and_what_is_not_needed_is_accepted() -> None:
    client, server = pair()
    number = client.ping()
    client.beat()
    settings = frames.control(Type.SETTINGS, frames.WORD.pack(1) + frames.PAIR.pack(4, 100))
    window = frames.control(Type.WINDOW_UPDATE, frames.PAIR.pack(0, 65536))
    unknown = frames.HEAD.pack(frames.CONTROL | frames.VERSION << 16 | 10, 3) + b"abc"
    assert server.receive_data(client.data_to_send() + settings + window + unknown) == [PingReceived(number)]
    assert client.receive_data(server.data_to_send()) == [PongReceived(number)]
    server.go_away()
    assert client.receive_data(server.data_to_send()) == [WentAway(0, Away.OK)]
    with pytest.raises(StreamClosed):
        client.open_stream({})


def test_a_header_block_may_have_trailing_headers_later() -> None:
    client, server = pair()
    stream = client.open_stream({"a": "1"})
    server.receive_data(client.data_to_send())
    late = frames.control(Type.HEADERS, frames.WORD.pack(stream) + client._pack({"b": "2"}), frames.FIN)
    assert server.receive_data(late) == [StreamEnded(stream)]
    client.open_stream({"c": "3"})
    assert server.receive_data(client.data_to_send()) == [StreamOpened(stream + 2, {"c": "3"})]


def test_streams_above_the_limit_are_refused_and_the_connection_goes_on() -> None:
    client, server = pair(SMALL)
    streams = [client.open_stream({}) for _ in range(6)]
    opened = server.receive_data(client.data_to_send())
    assert opened == [StreamOpened(stream, {}) for stream in streams[:4]]
    assert client.receive_data(server.data_to_send()) == [
        StreamReset(stream, Reset.REFUSED_STREAM) for stream in streams[4:]
    ]
    client.reset(streams[0])
    again = client.open_stream({})
    events = server.receive_data(client.data_to_send())
    assert events == [StreamReset(streams[0], Reset.CANCEL), StreamOpened(again, {})]


def test_ten_thousand_streams_in_a_row_leave_nothing_behind() -> None:
    client, server = pair()
    for _ in range(10_000):
        stream = client.open_stream({"streamtype": "data"}, end=True)
        server.receive_data(client.data_to_send())
        server.end(stream)
        server.data_to_send()
    assert not server._streams
    assert server._theirs == 0


def test_more_streams_than_a_connection_may_have_end_it() -> None:
    client, server = pair(Limits(streams=10))
    for _ in range(11):
        client.open_stream({}, end=True)
    with pytest.raises(ProtocolError, match="at most 10 streams"):
        server.receive_data(client.data_to_send())
    assert gone_away(server)


BOMB = zlib.compressobj(zdict=DICTIONARY)
BOMBED = BOMB.compress(frames.WORD.pack(1) + b"\0" * 60_000_000) + BOMB.flush(zlib.Z_SYNC_FLUSH)
MANY = frames.HeaderWriter().pack({f"h{n}": "" for n in range(9)})
ENDED = zlib.compressobj(zdict=DICTIONARY)
FINISHED = ENDED.compress(frames.WORD.pack(0)) + ENDED.flush(zlib.Z_FINISH)


def raw_block(block: bytes) -> bytes:
    packer = zlib.compressobj(zdict=DICTIONARY)
    return packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "never|opened"),
        (frames.HEAD.pack(frames.CONTROL | 2 << 16 | 1, 10) + bytes(10), "found version 2"),
        (frames.HEAD.pack(frames.CONTROL | 3 << 16 | 1, 0xFFFFFF), "at most 2048 bytes, found 16777215"),
        (frames.HEAD.pack(1, 3) + b"abc", "one of stream 1"),
        (frames.HEAD.pack(0, 3) + b"abc", "one of stream 0"),
        (syn(2, frames.HeaderWriter().pack({})), "stream 2 cannot be opened"),
        (syn(0, frames.HeaderWriter().pack({})), "stream 0 cannot be opened"),
        (syn(1, b"no zlib at all"), "packed by zlib"),
        (syn(1, zlib.compress(b"\0\0\0\0")), "found its end"),
        (syn(1, b""), "ends before"),
        (syn(1, BOMBED[:2000]), "at most 4096 bytes of headers"),
        (syn(1, MANY), "at most 8 headers, found 9"),
        (syn(1, FINISHED), "found its end"),
        (syn(1, raw_block(b"\xff\xff\xff\xff")), "at most 8 headers"),
        (syn(1, raw_block(b"\0\0\0\1\xff\xff\xff\xff")), "does not fit"),
        (syn(1, raw_block(b"\0\0\0\1\0\0\0\1A\0\0\0\0")), "not in lower case"),
        (syn(1, raw_block(b"\0\0\0\1\0\0\0\0\0\0\0\0")), "empty"),
        (syn(1, raw_block(b"\0\0\0\2" + b"\0\0\0\1a\0\0\0\0" * 2)), "twice"),
        (syn(1, raw_block(b"\0\0\0\0more")), "found 4 more bytes"),
        (frames.control(Type.SYN_STREAM, b"short"), "expected 10 bytes"),
        (frames.control(Type.PING, b"12345"), "expected 4 bytes in a frame of type PING"),
        (frames.control(Type.RST_STREAM, b"1234"), "RST_STREAM"),
        (frames.control(Type.RST_STREAM, frames.PAIR.pack(7, 1)), "one of stream 7"),
        (frames.control(Type.GOAWAY, b""), "GOAWAY"),
        (frames.control(Type.SETTINGS, frames.WORD.pack(0xFFFFFFFF)), "SETTINGS"),
        (frames.control(Type.SYN_REPLY, frames.WORD.pack(1) + frames.HeaderWriter().pack({})), "one of stream 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_spdy_is_said_and_ends_the_connection(data: bytes, words: str) -> None:
    _, server = pair(SMALL)
    with pytest.raises(ProtocolError, match=words) as first:
        server.receive_data(data)
    assert gone_away(server)
    with pytest.raises(ProtocolError) as second:
        server.receive_data(b"")
    assert second.value is first.value
    assert server.data_to_send() == b""


def test_a_bomb_is_not_unpacked() -> None:
    _, server = pair()
    assert len(BOMBED) < 64 * 1024
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="at most 65536 bytes"):
            server.receive_data(syn(1, BOMBED))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


# --- anything at all

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
headers = st.dictionaries(texts.map(str.lower).filter(lambda t: t and t == t.lower()), texts, max_size=5)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("open"), headers, st.booleans()),
        st.tuples(st.just("data"), st.integers(0, 5), st.binary(max_size=200)),
        st.tuples(st.just("end"), st.integers(0, 5), st.none()),
        st.tuples(st.just("reset"), st.integers(0, 5), st.none()),
        st.tuples(st.just("ping"), st.none(), st.none()),
        st.tuples(st.just("beat"), st.none(), st.none()),
    ),
    max_size=15,
)


def played(script: list[tuple[str, object, object]]) -> bytes:
    """What a client sends that does these things, as far as it may."""
    client, streams = Connection(client=True), [0]
    for what, first, second in script:
        try:
            match what, first, second:
                case "open", dict(), bool():
                    streams.append(client.open_stream(first, end=second))
                case "data", int(), bytes():
                    client.send_data(streams[first % len(streams)], second)
                case "end", int(), None:
                    client.end(streams[first % len(streams)])
                case "reset", int(), None:
                    client.reset(streams[first % len(streams)])
                case "ping", _, _:
                    client.ping()
                case "beat", _, _:
                    client.beat()
        except StreamClosed:
            pass
    client.go_away()
    return client.data_to_send()


@given(script=steps, cuts=st.lists(st.integers(0, 4000), max_size=8))
def test_events_do_not_depend_on_where_bytes_are_split(
    script: list[tuple[str, object, object]], cuts: list[int]
) -> None:
    data = played(script)
    whole = joined(Connection(client=False).receive_data(data))
    assert isinstance(whole[-1], WentAway)

    server, events, at = Connection(client=False), list[Event](), 0
    for cut in [*sorted(cuts), len(data)]:
        events += server.receive_data(data[at:cut])
        at = max(at, min(cut, len(data)))
    assert joined(events) == whole

    server = Connection(client=False)
    assert joined(event for byte in data for event in server.receive_data(bytes([byte]))) == whole


def held(server: Connection) -> int:
    return len(server._in) + len(server._out)


def fed(server: Connection, data: bytes, size: int) -> None:
    """Hand bytes over; only a `ProtocolError` may come of it, and little is held back."""
    sent = 0
    for at in range(0, len(data), size):
        piece = data[at : at + size]
        try:
            server.receive_data(piece)
        except ProtocolError:
            assert server.failed is not None
        out = len(server.data_to_send())
        sent += len(piece)
        assert out <= sent + 16
        assert held(server) <= SMALL.control_bytes + 8 + len(piece)
        assert len(server._streams) <= SMALL.open_streams


@given(data=st.binary(max_size=2000), size=st.integers(1, 500))
def test_random_bytes_do_no_harm(data: bytes, size: int) -> None:
    fed(Connection(client=False, limits=SMALL), data, size)
    client = Connection(client=True, limits=SMALL)
    client.open_stream({"a": "b"})
    client.data_to_send()
    fed(client, data, size)


frame = st.one_of(
    st.tuples(st.integers(0, 12), st.integers(0, 255), st.binary(max_size=60)).map(
        lambda f: frames.HEAD.pack(frames.CONTROL | 3 << 16 | f[0], f[1] << 24 | len(f[2])) + f[2]
    ),
    st.tuples(st.integers(0, 9), st.integers(0, 255), st.binary(max_size=60)).map(
        lambda f: frames.HEAD.pack(f[0], f[1] << 24 | len(f[2])) + f[2]
    ),
    st.tuples(st.integers(0, 40), st.binary(max_size=300)).map(lambda f: syn(f[0], raw_block(f[1]))),
)


@given(data=st.lists(frame, max_size=10).map(b"".join), script=steps, size=st.integers(1, 500))
def test_frames_that_make_no_sense_do_no_harm(data: bytes, script: list[tuple[str, object, object]], size: int) -> None:
    fed(Connection(client=False, limits=SMALL), played(script)[:-16] + data, size)


@given(
    script=steps,
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 255)), min_size=1, max_size=6),
    size=st.integers(1, 500),
)
def test_streams_with_flipped_bits_do_no_harm(
    script: list[tuple[str, object, object]], changes: list[tuple[int, int]], size: int
) -> None:
    data = bytearray(played(script))
    for at, bits in changes:
        data[at % len(data)] ^= bits
    fed(Connection(client=False, limits=SMALL), bytes(data), size)
