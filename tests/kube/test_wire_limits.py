"""What comes over a connection to the API server is bounded, in size and in time, whatever the server does."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import pytest

from tests.kube.peer import CHUNKED, OK, Script, Talk, answering, peer
from wasmlet.clock import Backoff, Pacing
from wasmlet.kube import Client, Reflector, Selection, errors
from wasmlet.kube import client as client_module
from wasmlet.kube import wire as module
from wasmlet.testing.clock import FakeClock

LIST = b'{"items": [], "metadata": {"resourceVersion": "5"}}'
JSON = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(LIST), LIST)


def without_end(start: bytes, piece: bytes) -> Script:
    """An answer that goes on until the client has had enough."""

    async def script(talk: Talk) -> None:
        await talk.asked()
        await talk.say(start)
        while True:
            await talk.say(piece)

    return script


@pytest.fixture
def small_bodies(monkeypatch: pytest.MonkeyPatch) -> int:
    most = 100_000
    for one in (module, client_module):
        monkeypatch.setattr(one, "BODY_BYTES", most)
    return most


class TestTheHeadOfAStream:
    @pytest.mark.parametrize("starts", [b"", b"HTTP/1.1 200 OK\r\nX: "])
    async def test_has_to_come_soon(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: bytes) -> None:
        monkeypatch.setattr(module, "HEAD_SECONDS", 0.3)

        async def drips(talk: Talk) -> None:
            await talk.asked()
            await talk.say(starts)
            while starts:  # what comes of it makes it no younger
                await talk.say(b"y")
                await asyncio.sleep(0.02)
            await talk.asked()

        async with peer(tmp_path, drips) as it, asyncio.timeout(10):
            with pytest.raises(errors.Unreachable, match="did not answer in time: an answer to a watch did not begin"):
                async with it.client.stream("/x", {}, silence=600):
                    pass
            assert len(it.requests) == 1

    async def test_may_take_as_long_as_it_likes_where_silence_may(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The logs of a container that says nothing have no head until it says something."""
        monkeypatch.setattr(module, "HEAD_SECONDS", 0.05)

        async def late(talk: Talk) -> None:
            await talk.asked()
            await asyncio.sleep(0.5)
            await talk.say(OK)

        async with peer(tmp_path, late) as it, asyncio.timeout(10), it.client.stream("/x", {}) as content:
            assert await content.read() == b"{}"

    async def test_has_nothing_to_do_with_how_long_its_body_may_be_silent(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "HEAD_SECONDS", 0.2)

        async def script(talk: Talk) -> None:
            await talk.asked()
            await talk.say(CHUNKED)
            await asyncio.sleep(0.6)
            await talk.say(b"1\r\na\r\n0\r\n\r\n")

        async with peer(tmp_path, script) as it, it.client.stream("/x", {}, silence=5) as content:
            assert await content.read() == b"a"

    async def test_that_never_comes_has_a_watch_tried_ever_less_often(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "HEAD_SECONDS", 0.05)

        async def says_nothing_to_a_watch(talk: Talk) -> None:
            while "watch=1" not in await talk.asked():
                await talk.say(JSON)
            await talk.asked()

        class Nobody:
            def synced(self, items: object) -> None: ...
            def applied(self, item: object) -> None: ...
            def deleted(self, item: object) -> None: ...

        clock = FakeClock()
        async with peer(tmp_path, says_nothing_to_a_watch) as it, asyncio.timeout(20):
            pacing = Pacing(clock, backoff=Backoff(initial=1, cap=8, jitter=0))
            task = asyncio.create_task(Reflector(it.client, Selection("/things"), Nobody(), pacing=pacing).run())
            pauses = []
            for _ in range(5):
                pauses.append(await clock.next_sleep())
                watches = [line for lines in it.requests for line in lines if "watch=1" in line]
                assert len(watches) == len(pauses)
                clock.advance(pauses[-1])
            task.cancel()
            await asyncio.wait({task})
        assert pauses == [1, 2, 4, 8, 8]


class TestTrailers:
    async def test_are_no_headers(self, tmp_path: Path) -> None:
        ends = b"2\r\n{}\r\n0\r\nContent-Encoding: gzip\r\nRetry-After: 200\r\n\r\n"
        async with peer(tmp_path, answering(CHUNKED, ends)) as it:
            for _ in range(2):
                assert await it.client.get("/x") == {}
            assert len(it.requests) == 1

    async def test_may_end_the_connection(self, tmp_path: Path) -> None:
        async with peer(tmp_path, answering(CHUNKED, b"2\r\n{}\r\n0\r\nConnection: close\r\n\r\n")) as it:
            for _ in range(2):
                assert await it.client.patch("/x", {}) == {}
            assert len(it.requests) == 2

    async def test_do_not_put_off_a_request(self, tmp_path: Path) -> None:
        refuses = CHUNKED.replace(b"200 OK", b"503 Unavailable")
        async with peer(tmp_path, answering(refuses, b"2\r\n{}\r\n0\r\nRetry-After: 200\r\n\r\n")) as it:
            with pytest.raises(errors.ServerError, match="503") as raised:
                await it.client.get("/x")
        assert raised.value.retry_after == 0


class TestTheSizeOfABody:
    @pytest.mark.parametrize(
        ("start", "piece"),
        [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", b" " * 10_000),
            (b"HTTP/1.1 200 OK\r\n\r\n", b" " * 10_000),
            (CHUNKED, b"1000\r\n" + b" " * 0x1000 + b"\r\n"),
            (CHUNKED, b"1\r\n \r\n" * 1000),
            (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", b" " * 10_000),
        ],
        ids=["length", "connection", "chunks", "bytes", "error"],
    )
    async def test_is_bounded(self, tmp_path: Path, small_bodies: int, start: bytes, piece: bytes) -> None:
        async with peer(tmp_path, without_end(start, piece), answering(OK)) as it, asyncio.timeout(20):
            with pytest.raises(errors.Unreachable, match=f"the body of an answer has over {small_bodies} bytes"):
                await it.client.get("/x")
            assert await it.client.get("/x") == {}
        assert len(it.requests) == 2

    async def test_is_bounded_when_it_is_no_longer_compressed(self, tmp_path: Path, small_bodies: int) -> None:
        fits, long = (gzip.compress(b'{"a": "' + b"x" * count + b'"}') for count in (small_bodies - 9, small_bodies))
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
        scripts = (answering(head % (len(one), one)) for one in (fits, long))
        for script, good in zip(scripts, (True, False), strict=True):
            async with peer(tmp_path, script) as it:
                if good:
                    assert len((await it.client.get("/x"))["a"]) == small_bodies - 9
                    continue
                with pytest.raises(errors.Unreachable, match=f"over {small_bodies} bytes when it is no longer compr"):
                    await it.client.get("/x")

    async def test_that_is_compressed_and_breaks_off_is_none(self, tmp_path: Path) -> None:
        packed = gzip.compress(b"{}" + b" " * 1000)[:-1]
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        async with peer(tmp_path, answering(head % len(packed) + packed)) as it:
            with pytest.raises(errors.Unreachable, match="it breaks off"):
                await it.client.get("/x")

    async def test_is_not_bounded_for_a_stream(self, tmp_path: Path, small_bodies: int) -> None:
        script = without_end(CHUNKED, b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        async with peer(tmp_path, script) as it, it.client.stream("/x", {}, silence=10) as content:
            assert len(await content.readexactly(3 * small_bodies)) == 3 * small_bodies


BESIDE = {
    "an extension of a chunk": CHUNKED + b"1;x=",
    "a trailer": CHUNKED + b"2\r\n{}\r\n0\r\nX: ",
    "a header": b"HTTP/1.1 200 OK\r\nX: ",
    "a status": b"HTTP/1.1 200 ",
}


@pytest.mark.parametrize("stream", [False, True], ids=["request", "stream"])
@pytest.mark.parametrize("start", BESIDE.values(), ids=BESIDE.keys())
async def test_nothing_else_goes_on_without_end(tmp_path: Path, start: bytes, stream: bool) -> None:
    async def ask(client: Client) -> None:
        if stream:
            async with client.stream("/x", {}, silence=600) as content:
                await content.read()
        else:
            await client.get("/x")

    async with peer(tmp_path, without_end(start, b"y" * 1000)) as it, asyncio.timeout(20):
        with pytest.raises(errors.Unreachable, match=f"has over {module.HEAD_BYTES} bytes"):
            await ask(it.client)


@pytest.mark.parametrize("piece", [b"X: y\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["headers", "interim answers"])
async def test_there_are_not_many_headers_or_interim_answers(tmp_path: Path, piece: bytes) -> None:
    start = b"" if piece.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\n"
    async with peer(tmp_path, without_end(start, piece * 100)) as it, asyncio.timeout(20):
        with pytest.raises(errors.Unreachable, match=f"the head of an answer has over {module.HEAD_BYTES} bytes"):
            await it.client.get("/x")


async def test_all_members_of_a_compressed_body_are_read(tmp_path: Path) -> None:
    body = gzip.compress(b'{"a":1') + gzip.compress(b"") + gzip.compress(b',"b":2}')
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with peer(tmp_path, answering(head + body)) as it:
        assert await it.client.get("/x") == {"a": 1, "b": 2}


async def test_all_members_of_a_compressed_body_have_one_limit(tmp_path: Path, small_bodies: int) -> None:
    body = gzip.compress(bytes(small_bodies * 2 // 3)) * 2
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with peer(tmp_path, answering(head + body)) as it:
        with pytest.raises(errors.Unreachable, match="no longer compressed"):
            await it.client.get("/x")
