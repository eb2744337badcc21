"""Bytes of requests, however they are cut, and bytes of answers."""

from __future__ import annotations

import contextlib
import itertools
import tracemalloc
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasmlet_wasmtime.p2.answers import Answer, Unsendable, text
from wasmlet_wasmtime.p2.requests import End, Event, Head, Reader, Refused

LIMIT = 2000
HEAD = b"POST /a HTTP/1.1\r\nHost: x\r\n"
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
TOKENS = st.text("abcXYZ-09", min_size=1, max_size=10).map(lambda name: f"x-{name}".encode())
VALUES = st.binary(max_size=20).map(lambda value: bytes(byte for byte in value if byte > 32 and byte != 127))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request with a body of a length, one in chunks with trailers, or one without a body."""
    fields = b"".join(b"%b: %b\r\n" % pair for pair in draw(st.lists(st.tuples(TOKENS, VALUES), max_size=4)))
    parts = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
    kind = draw(st.sampled_from(["none", "length", "chunks"]))
    if kind == "none":
        return b"GET /a?b HTTP/1.1\r\n" + fields + b"Host: x\r\n\r\n"
    if kind == "length":
        body = b"".join(parts)
        return HEAD + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return HEAD + fields + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n" + fields + b"\r\n"


def taken(reader: Reader) -> list[Any]:
    """All events, with the pieces of each body put together."""
    found: list[Any] = []
    while (event := reader.next()) is not None:
        if isinstance(event, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += event
        else:
            found.append(event)
    return found


def read(*parts: bytes) -> list[Any]:
    reader = Reader(LIMIT)
    for part in parts:
        reader.feed(part)
    return taken(reader)


def by_h11(data: bytes) -> list[Any]:
    """What h11 finds in the same bytes."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    found: list[Any] = []
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            fields = [(bytes(name), bytes(value)) for name, value in event.headers]
            found.append(Head(event.method.decode(), bytes(event.target), fields, "1.1", keeps=True))
        elif isinstance(event, h11.Data):
            if found and isinstance(found[-1], bytes):
                found[-1] += bytes(event.data)
            elif event.data:
                found.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            found.append(End([(bytes(name), bytes(value)) for name, value in event.headers]))
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
        else:
            return found


@given(st.lists(requests(), min_size=1, max_size=4), st.lists(st.integers(0, 600), max_size=6))
def test_how_requests_are_cut_does_not_matter(wanted: list[bytes], places: list[int]) -> None:
    whole = b"".join(wanted)
    edges = [0, *sorted(min(place, len(whole)) for place in places), len(whole)]
    pieces = [whole[begin:end] for begin, end in itertools.pairwise(edges) if begin < end]
    assert read(*pieces) == read(whole) == by_h11(whole)


@given(st.binary(max_size=200), st.lists(requests(), max_size=1))
def test_any_bytes_are_events_or_are_refused(garbage: bytes, before: list[bytes]) -> None:
    reader = Reader(LIMIT)
    reader.feed(b"".join(before) + garbage)
    reader.feed(b"")
    events: list[Event | None] = []
    with contextlib.suppress(Refused):
        while events[-1:] != [None]:
            events.append(reader.next())
    assert sum(isinstance(event, End) for event in events) >= len(before)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /a HTTP/1.1\nHost: x\n\n", 400),
        (HEAD + b"A: b\r\n c\r\n\r\n", 400),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        (HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
        (b"BREW /a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /a\r\n\r\n", 505),
        (b"GET /a HTTP/1.1\r\n\r\n", 400),
        (b"GET /a HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (HEAD + b"a:\r\n" * 100 + b"\r\n", 431),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /a HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: user@x\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
        (b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\nmore", 400),
        (b"GET /" + b"a" * LIMIT, 431),
    ],
)
def test_what_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(Refused) as found:
        read(data, b"b", b"")
    assert found.value.status == status


def test_small_chunks_come_together() -> None:
    reader = Reader(LIMIT)
    reader.feed(CHUNKS + b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n")
    events = []
    while (event := reader.next()) is not None:
        events.append(event)
    assert b"".join(event for event in events if isinstance(event, bytes)) == b"a" * 10_000
    assert isinstance(events[-1], End)
    assert len(events) < 10


@pytest.mark.parametrize("host", [b"", b"x_y.example:8080", b"[::1]:80", b"192.0.2.1", b"a%20b:"])
def test_hosts(host: bytes) -> None:
    events = read(b"GET /a HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", b"")
    assert events[0].fields == [(b"host", host)]


@pytest.mark.parametrize("rest", [b"5;" + b"a" * 40_000, b"0\r\n" + b"A: b\r\n" * 100])
def test_what_comes_with_a_body_has_a_limit(rest: bytes) -> None:
    reader = Reader(LIMIT)
    for part in (CHUNKS, *(rest[at : at + 100] for at in range(0, len(rest), 100))):
        reader.feed(part)
    assert isinstance(reader.next(), Head)
    with pytest.raises(Refused):
        reader.next()


UPGRADE = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"


@given(st.lists(st.sampled_from([
    UPGRADE + b"\r\n", UPGRADE + b"Content-Length: 0\r\n\r\n", UPGRADE + b"Content-Length: 5\r\n\r\nGET /",
    UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\nX-A: b\r\n\r\n", HEAD + b"\r\n",
]), min_size=1, max_size=5), st.integers(1, 300))  # fmt: skip
def test_a_request_that_asks_for_another_protocol_is_read_as_one_that_does_not(wanted: list[bytes], size: int) -> None:
    whole = b"".join(wanted)
    found = read(*(whole[at : at + size] for at in range(0, len(whole), size)))
    assert [event._replace(keeps=True) if isinstance(event, Head) else event for event in found] == by_h11(whole)


def test_many_requests_that_ask_for_another_protocol() -> None:
    request = b"GET / HTTP/1.1\r\nHost:\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    assert len(read(request * 5000)) == 10_000


def test_requests_that_wait_take_no_more_than_their_bytes() -> None:
    reader = Reader(LIMIT)
    tracemalloc.start()
    try:
        reader.feed(b"GET / HTTP/1.1\r\nHost:\r\n\r\n" * 2500)
        assert isinstance(reader.next(), Head)
        assert reader.has_end()
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("version", "field"), [("1.1", b"Connection: close"), ("1.0", b"Connection: keep-alive")])
def test_the_last_request_of_a_connection(version: str, field: bytes) -> None:
    reader = Reader(LIMIT)
    reader.feed(b"GET / HTTP/%b\r\nHost: x\r\n%b\r\n\r\nGET" % (version.encode(), field))
    head = reader.next()
    assert isinstance(head, Head)
    assert not head.keeps
    assert reader.next() == End([])


def test_a_request_that_breaks_off() -> None:
    reader = Reader(LIMIT)
    reader.feed(HEAD + b"Content-Length: 3\r\n\r\na")
    reader.feed(b"")
    assert isinstance(reader.next(), Head)
    assert reader.next() == b"a"
    with pytest.raises(Refused):
        reader.next()


def parsed(data: bytes, method: str = "GET") -> list[Any]:
    """An answer as h11 reads it, up to its end or that of the connection."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    found: list[Any] = []
    while True:
        event = connection.next_event()
        if isinstance(event, h11.InformationalResponse | h11.Response):
            found.append((event.status_code, {bytes(name): bytes(value) for name, value in event.headers}))
        elif isinstance(event, h11.Data):
            found.append(bytes(event.data))
        else:
            return found


def test_the_length_is_told_if_it_is_known() -> None:
    answer = Answer("GET", "1.1", keeps=True)
    head, body = parsed(answer.head(200, [("X", b"y")], 5) + answer.data([b"he", b"llo"]) + answer.end([]))
    assert head[0] == 200
    assert {b"x": b"y", b"content-length": b"5"}.items() <= head[1].items()
    assert b"connection" not in head[1]
    assert body == b"hello"


def test_chunks_if_the_length_is_not_known() -> None:
    answer = Answer("GET", "1.1", keeps=True)
    data = answer.head(200, [], None) + answer.data([b"he"]) + answer.data([]) + answer.data([b"llo"])
    data += answer.end([("X-Sum", b"1")])
    assert data.endswith(b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert b"".join(parsed(data)[1:]) == b"hello"


def test_the_end_of_the_connection_for_a_client_that_knows_no_chunks() -> None:
    answer = Answer("GET", "1.0", keeps=True)
    head, body = parsed(answer.head(200, [], None) + answer.data([b"hello"]) + answer.end([]))
    assert not answer.keeps
    assert head[1][b"connection"] == b"close"
    assert body == b"hello"


@pytest.mark.parametrize(("method", "status", "length"), [("HEAD", 200, b"5"), ("GET", 204, None), ("GET", 304, b"5")])
def test_answers_without_a_body(method: str, status: int, length: bytes | None) -> None:
    answer = Answer(method, "1.1", keeps=True)
    data = answer.head(status, [("Content-Length", b"5")], None) + answer.data([b"hello"]) + answer.end([])
    ((found, fields),) = parsed(data, method)
    assert (found, fields.get(b"content-length")) == (status, length)
    assert data.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("body", [b"hell", b"hello!"])
def test_another_length_than_the_guest_has_told(body: bytes) -> None:
    answer = Answer("GET", "1.1", keeps=True)
    assert answer.head(200, [("content-length", b"5"), ("Content-Length", b"5")], None).lower().count(b"-length") == 1
    with pytest.raises(Unsendable, match="longer" if len(body) > 5 else "shorter"):
        answer.end([]) if answer.data([body]) == b"hell" else None


@pytest.mark.parametrize("value", [b"-5", b"+5", b"1_0", b"abc", b"9" * 30])
def test_a_length_that_is_none(value: bytes) -> None:
    with pytest.raises(Unsendable, match="content-length"):
        Answer("HEAD", "1.1", keeps=True).head(200, [("content-length", value)], None)


def test_heads_before_the_answer_and_short_answers() -> None:
    early = Answer("GET", "1.1", keeps=True).informational(103, [("link", b"</a>")])
    data = early + text(413, "the body is too large", bodiless=False)
    first, late, body = parsed(data)
    assert (first[0], first[1][b"link"]) == (103, b"</a>")
    assert (late[0], late[1][b"connection"], body) == (413, b"close", b"the body is too large\n")
    assert text(413, "no", bodiless=True).endswith(b"\r\n\r\n")
    assert Answer("GET", "1.0", keeps=False).informational(103, []) == b""
