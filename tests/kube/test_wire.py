"""What comes over a connection to the API server: each kind of answer, and what is none."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.kube.peer import CHUNKED, OK, Talk, answering, peer
from wasmlet.kube import Client, errors
from wasmlet.kube.wire import HEAD_BYTES

BODY = b'{"a": "' + b"x" * 5000 + b'"}'
WHOLE: Sequence[tuple[str, tuple[bytes, ...]]] = [
    ("a length", (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY),)),
    ("bit by bit", tuple(bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + b'{"a":"x"}')),
    (
        "chunks",
        (CHUNKED, b"5;ext=1\r\n" + BODY[:5], b"\r\n%x\r\n%b\r\n" % (len(BODY) - 5, BODY[5:]), b"0\r\nT: 1\r\n\r\n"),
    ),
    (
        "an interim answer",
        (b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n", b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"a":"x"}'),
    ),
    ("no content", (b"HTTP/1.1 204 No Content\r\n\r\n",)),
]


@pytest.mark.parametrize("pieces", [pieces for _, pieces in WHOLE], ids=[name for name, _ in WHOLE])
async def test_an_answer_is_read_and_its_connection_used_again(tmp_path: Path, pieces: tuple[bytes, ...]) -> None:
    async with peer(tmp_path, answering(*pieces)) as it:
        for _ in range(3):
            answer = await it.client.get("/x")
            assert answer == {} if b"204" in pieces[0] else set(answer["a"]) == {"x"}
        assert it.requests == [["GET /x HTTP/1.1"] * 3]


async def test_a_list_may_be_compressed_and_only_reads_offer_that(tmp_path: Path) -> None:
    packed, offers = gzip.compress(BODY), []

    async def script(talk: Talk) -> None:
        while True:
            offers.append("Accept-Encoding: gzip" in await talk.asked())
            head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
            await talk.say(head % len(packed) + packed if offers[-1] else OK)

    async with peer(tmp_path, script) as it:
        assert len((await it.client.get("/x"))["a"]) == 5000
        await it.client.patch("/x", {})
        await it.client.delete("/x")
        async with it.client.stream("/x", {}) as content:
            await content.read()
    assert offers == [True, False, False, False]


@pytest.mark.parametrize("says", [b"", b"Connection: close\r\n"])
async def test_a_body_may_end_with_the_connection(tmp_path: Path, says: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.asked()
        await talk.say(b"HTTP/1.1 200 OK\r\n%b\r\n" % says, b'{"a":', b'"x"}')

    async with peer(tmp_path, script) as it:
        assert [await it.client.get("/x") for _ in range(2)] == [{"a": "x"}] * 2
        assert len(it.requests) == 2


NONE = [
    b"SSH-2.0-OpenSSH\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    CHUNKED + b"x\r\n{}\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: %b\r\n" % (b"y" * 1000) * (HEAD_BYTES // 1000),
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
    CHUNKED + b"2\r\n{}\r\n",
    b"HTTP/1.1 200",
]


@pytest.mark.parametrize("piece", NONE, ids=[str(piece[:60]) for piece in NONE])
async def test_what_is_no_answer_breaks_the_connection(tmp_path: Path, piece: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.asked()
        await talk.say(piece)

    async with peer(tmp_path, script, answering(OK)) as it:
        async with asyncio.timeout(10):
            with pytest.raises(errors.Unreachable, match="broke"):
                await it.client.get("/x")
            assert await it.client.get("/x") == {}
        assert it.requests == [["GET /x HTTP/1.1"]] * 2


async def test_nobody_is_asked_where_an_answer_points_to(tmp_path: Path) -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.test/\r\nContent-Length: 0\r\n\r\n"
    async with peer(tmp_path, answering(moved)) as it:
        with pytest.raises(errors.ApiError, match=r"HTTP 302: it wants to be asked at https://elsewhere\.test/"):
            await it.client.get("/x")
        assert it.requests == [["GET /x HTTP/1.1"]]


async def ends_after_one(talk: Talk) -> None:
    await talk.asked()
    await talk.say(OK)
    await talk.asked()  # and gives no answer, as if it had ended the connection just before


class TestAKeptConnectionThatTheServerEnds:
    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    async def test_a_request_that_may_be_repeated_is_sent_once_more(self, tmp_path: Path, method: str) -> None:
        async with peer(tmp_path, ends_after_one, answering(OK)) as it:
            await it.client.get("/x")
            assert await it.client.request(method, "/x") == {}
            assert it.requests == [["GET /x HTTP/1.1", f"{method} /x HTTP/1.1"], [f"{method} /x HTTP/1.1"]]

    @pytest.mark.parametrize("method", ["POST", "PATCH"])
    async def test_another_is_not(self, tmp_path: Path, method: str) -> None:
        async with peer(tmp_path, ends_after_one, answering(OK)) as it:
            await it.client.get("/x")
            with pytest.raises(errors.Unreachable, match="broke"):
                await it.client.request(method, "/x")
            assert it.requests == [["GET /x HTTP/1.1", f"{method} /x HTTP/1.1"]]

    async def test_it_is_not_used_where_that_was_seen(self, tmp_path: Path) -> None:
        ended = asyncio.Event()

        async def script(talk: Talk) -> None:
            await talk.asked()
            await talk.say(OK)
            await ended.wait()

        async with peer(tmp_path, script, answering(OK)) as it:
            await it.client.get("/x")
            assert it.client._pool is not None
            (connection,) = it.client._pool._all
            seen = asyncio.Event()
            connection._opened.add_callback(seen.set)
            ended.set()
            async with asyncio.timeout(10):
                await seen.wait()
            assert await it.client.patch("/x", {}) == {}
            assert it.requests == [["GET /x HTTP/1.1"], ["PATCH /x HTTP/1.1"]]


async def test_what_nobody_asked_for_ends_a_connection_and_is_nobodys_answer(tmp_path: Path) -> None:
    sent = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.asked()
        await talk.say(OK + b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"a":"x"}')
        sent.set()
        await talk.asked()

    async with peer(tmp_path, script, answering(OK)) as it:
        assert await it.client.patch("/x", {}) == {}
        await sent.wait()
        assert await it.client.patch("/x", {}) == {}
        assert it.requests == [["PATCH /x HTTP/1.1"]] * 2


async def test_a_request_that_is_given_up_takes_its_connection_with_it(tmp_path: Path) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.asked()
        asked.set()
        assert await talk.reader.read() == b""
        closed.set()

    async with peer(tmp_path, script, answering(OK), connections=1) as it:
        request = asyncio.create_task(it.client.get("/late"))
        await asked.wait()
        request.cancel()
        await asyncio.wait([request])
        assert request.cancelled()
        async with asyncio.timeout(10):
            await closed.wait()
            assert await it.client.get("/x") == {}  # in the one place that there is


async def test_no_more_requests_than_allowed_are_under_way(tmp_path: Path) -> None:
    more, under_way, most = asyncio.Event(), 0, 0

    async def script(talk: Talk) -> None:
        nonlocal under_way, most
        while True:
            await talk.asked()
            under_way += 1
            most = max(most, under_way)
            if most == 2:
                more.set()
            await more.wait()
            under_way -= 1
            await talk.say(OK)

    async with peer(tmp_path, script, connections=2) as it:
        await asyncio.gather(*(it.client.get(f"/{number}") for number in range(20)))
        assert most == 2
        assert sum(map(len, it.requests)) == 20


async def test_one_that_waits_for_its_turn_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.asked()
        asked.set()
        await talk.asked()

    async with peer(tmp_path, script, connections=1) as it:
        first = asyncio.create_task(it.client.get("/first"))
        await asked.wait()
        with pytest.raises(errors.Unreachable, match="did not answer in time"):
            await it.client.request("GET", "/second", seconds=0.05)
        assert not first.done()
        first.cancel()
        await asyncio.wait([first])
        assert it.requests == [["GET /first HTTP/1.1"]]


async def test_each_request_on_a_connection_has_its_own_time(tmp_path: Path) -> None:
    async def script(talk: Talk) -> None:
        while "/late" not in await talk.asked():
            await talk.say(OK)
        await talk.asked()

    async with peer(tmp_path, script) as it, asyncio.timeout(10):
        for seconds in (30.0, 10.0, 30.0):  # of which none has to wait
            await it.client.request("GET", "/x", seconds=seconds)
        with pytest.raises(errors.Unreachable, match="did not answer in time"):
            await it.client.request("GET", "/late", seconds=0.1)


class TestAStream:
    async def test_ends_as_its_body_does_and_leaves_its_connection(self, tmp_path: Path) -> None:
        async with peer(tmp_path, answering(CHUNKED, b"2\r\nab\r\n", b"0\r\n\r\n")) as it:
            for _ in range(2):
                async with it.client.stream("/x", {"watch": "1"}) as content:
                    assert await content.read() == b"ab"
            assert it.requests == [["GET /x?watch=1 HTTP/1.1"] * 2]

    async def test_that_breaks_off_is_no_end(self, tmp_path: Path) -> None:
        async def script(talk: Talk) -> None:
            await talk.asked()
            await talk.say(CHUNKED, b"2\r\nab\r\n")

        async with peer(tmp_path, script) as it:
            with pytest.raises(errors.Unreachable, match="broke"):
                async with it.client.stream("/x", {}) as content:
                    await content.read()

    async def test_of_which_only_a_part_is_read_ends_its_connection(self, tmp_path: Path) -> None:
        async with peer(tmp_path, answering(CHUNKED, b"2\r\nab\r\n", b"0\r\n\r\n")) as it:
            for _ in range(2):
                async with it.client.stream("/x", {}) as content:
                    assert await content.readexactly(1) == b"a"
            assert len(it.requests) == 2

    async def test_that_is_silent_is_given_up_and_one_that_says_something_is_not(self, tmp_path: Path) -> None:
        async def script(talk: Talk) -> None:
            await talk.asked()
            await talk.say(CHUNKED)
            for _ in range(10):
                await talk.say(b"1\r\na\r\n")
                await asyncio.sleep(0.1)
            await talk.asked()

        found = bytearray()

        async def follow(client: Client) -> None:
            async with client.stream("/x", {}, silence=0.6) as content:
                while piece := await content.read(10):
                    found.extend(piece)

        async with peer(tmp_path, script) as it, asyncio.timeout(10):
            with pytest.raises(errors.Unreachable, match="did not answer in time"):
                await follow(it.client)
            assert found == b"a" * 10


async def test_a_path_reaches_the_server_as_it_is_meant(tmp_path: Path) -> None:
    async with peer(tmp_path, answering(OK)) as it:
        await it.client.get("/a b\r\nX: y/ü:c%20d", labelSelector="a in (b, c),d=e&f")
    assert it.requests == [["GET /a%20b%0D%0AX:%20y/%C3%BC:c%20d?labelSelector=a+in+%28b%2C+c%29%2Cd%3De%26f HTTP/1.1"]]


async def test_a_watch_that_is_refused_reads_no_endless_answer(tmp_path: Path) -> None:
    async def refuses_for_ever(talk: Talk) -> None:
        await talk.asked()
        await talk.say(b"HTTP/1.1 500 Internal Server Error\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await talk.say(b"1000\r\n" + bytes(0x1000) + b"\r\n")

    async with peer(tmp_path, refuses_for_ever) as at, asyncio.timeout(30):
        with pytest.raises(errors.ApiError):
            async with at.client.stream("/x", {}):
                pass
