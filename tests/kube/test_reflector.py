"""The reflector under all that an API server does to a watch: nothing is lost, and it lists only when it must."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from aiohttp import web

from tests.kube.server import serving
from wasmlet.clock import Backoff, Pacing
from wasmlet.kube import History, Reflector, Selection
from wasmlet.kube import reflector as module
from wasmlet.model.pod import Raw
from wasmlet.testing.clock import FakeClock

Script = list[Any]
REWOUND = ("rewound", None)


def thing(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def event(kind: str, name: str, version: int) -> bytes:
    return json.dumps({"type": kind, "object": thing(name, version)}).encode() + b"\n"


class Seen:
    """A handler that keeps what it is told and wakes whoever waits for it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._news = asyncio.Event()

    def synced(self, items: Sequence[Raw]) -> None:
        self._note("synced", [item["metadata"]["name"] for item in items])

    def applied(self, item: Raw) -> None:
        self._note("applied", item["metadata"]["name"])

    def deleted(self, item: Raw) -> None:
        self._note("deleted", item["metadata"]["name"])

    def _note(self, what: str, of: Any) -> None:
        self.calls.append((what, of))
        self._news.set()

    async def until(self, count: int) -> list[tuple[str, Any]]:
        async with asyncio.timeout(30):
            while len(self.calls) < count:
                self._news.clear()
                await self._news.wait()
        return self.calls


class Server:
    """Answers lists from `lists` and watches from `watches`, in turn; a watch past the script stays open."""

    def __init__(self, lists: Script, watches: Script) -> None:
        self.lists, self.watches = lists, watches
        self.asked: list[dict[str, str]] = []
        self.checked: list[str] = []
        self.checks: list[tuple[dict[str, Any], int]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("resourceVersionMatch") == "NotOlderThan":
            self.checked.append(request.query["resourceVersion"])
            answer, status = self.checks.pop(0) if self.checks else (listing(5), 200)
            return web.json_response(answer, status=status)
        self.asked.append(dict(request.query))
        if "watch" not in request.query:
            answer = self.lists.pop(0)
            if isinstance(answer, int):
                return web.json_response({"kind": "Status", "code": answer, "message": "list"}, status=answer)
            return web.json_response(answer)
        step = self.watches.pop(0) if self.watches else ["open"]
        if isinstance(step, int):
            return web.json_response({"kind": "Status", "code": step, "message": "watch"}, status=step)
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in step:
            if piece == "open":
                await asyncio.Event().wait()
            elif piece == "abort":
                assert request.transport is not None
                request.transport.abort()
            else:
                await response.write(piece)
        return response

    @property
    def watched_from(self) -> list[str]:
        return [query["resourceVersion"] for query in self.asked if "watch" in query]


def listing(version: int, *names: str, more: str = "") -> dict[str, Any]:
    metadata = {"resourceVersion": str(version)} | ({"continue": more} if more else {})
    return {"metadata": metadata, "items": [thing(name, version) for name in names]}


@asynccontextmanager
async def reflecting(server: Server, directory: Path) -> Any:
    seen = Seen()
    async with serving(server.answer, directory) as client:
        pacing = Pacing(rng=random.Random(1), backoff=Backoff(initial=0.01, cap=0.02))
        history = History()
        history.on_rewound(lambda: seen.calls.append(REWOUND))
        reflector = Reflector(client, Selection("/things"), seen, pacing=pacing, history=history)
        task = asyncio.create_task(reflector.run())
        try:
            yield seen, reflector
        finally:
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()


async def test_list_then_watch(tmp_path: Path) -> None:
    server = Server([listing(5, "a", "b")], [[event("ADDED", "c", 6), event("DELETED", "a", 7), "open"]])
    async with reflecting(server, tmp_path) as (seen, _):
        assert await seen.until(3) == [("synced", ["a", "b"]), ("applied", "c"), ("deleted", "a")]
    assert server.watched_from == ["5"]
    assert server.asked[1]["allowWatchBookmarks"] == "true"


async def test_pages_are_joined(tmp_path: Path) -> None:
    server = Server([listing(5, "a", more="next"), listing(5, "b")], [])
    async with reflecting(server, tmp_path) as (seen, _):
        assert await seen.until(1) == [("synced", ["a", "b"])]
    assert server.asked[1]["continue"] == "next"


async def test_a_watch_that_ends_is_resumed_from_the_last_version_bookmarks_included(tmp_path: Path) -> None:
    server = Server(
        [listing(5)],
        [[event("ADDED", "a", 6)], [event("BOOKMARK", "", 9)], [event("MODIFIED", "a", 10), "open"]],
    )
    async with reflecting(server, tmp_path) as (seen, reflector):
        assert await seen.until(3) == [("synced", []), ("applied", "a"), ("applied", "a")]
        assert reflector.lists == 1
    assert server.watched_from == ["5", "6", "9"]


@pytest.mark.parametrize(
    "trouble",
    [
        410,
        [
            json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}).encode()
            + b"\n"
        ],
    ],
    ids=["http", "event"],
)
async def test_only_410_lists_again(tmp_path: Path, trouble: Any) -> None:
    server = Server([listing(5, "a"), listing(20, "b")], [trouble, [event("ADDED", "c", 21), "open"]])
    async with reflecting(server, tmp_path) as (seen, reflector):
        assert await seen.until(3) == [("synced", ["a"]), ("synced", ["b"]), ("applied", "c")]
        assert reflector.lists == 2
    assert server.watched_from == ["5", "20"]


@pytest.mark.parametrize(
    "trouble",
    [
        500,
        403,
        ["abort"],
        [event("ADDED", "c", 6)[:20], "abort"],
        [event("ADDED", "c", 6)[:20]],
        [b"<html>\n"],
        [b'{"type":"ADDED"}\n'],
        [b'{"type":"ADDED","object":{"metadata":{}}}\n'],
        [json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 500}}).encode() + b"\n"],
    ],
    ids=["500", "403", "abort", "cut-abort", "cut-end", "html", "no-object", "no-version", "error-event"],
)
async def test_trouble_loses_nothing_and_does_not_list(tmp_path: Path, trouble: Any) -> None:
    server = Server([listing(5)], [trouble, [event("ADDED", "c", 6), "open"]])
    async with reflecting(server, tmp_path) as (seen, reflector):
        calls = await seen.until(2)
        assert calls[0] == ("synced", [])
        assert calls[-1] == ("applied", "c")
        assert reflector.lists == 1
    assert server.watched_from == ["5", "5"]


async def test_trouble_that_goes_on_is_said_once(tmp_path: Path) -> None:
    good = [event("ADDED", "c", 6)]
    server = Server([listing(5)], [500, 500, 500, 403, 403, good, 500, 500, [event("ADDED", "d", 7), "open"]])
    with structlog.testing.capture_logs() as lines:
        async with reflecting(server, tmp_path) as (seen, _):
            await seen.until(3)
    said = [line["log_level"] for line in lines if line["event"] == "watch: failed, trying again"]
    assert said == ["warning", "debug", "debug", "warning", "debug", "warning", "debug"]


async def test_a_failed_list_is_never_taken_for_an_empty_one(tmp_path: Path) -> None:
    server = Server([500, 403, listing(5, "a", more="next"), 410, listing(7, "a")], [])
    async with reflecting(server, tmp_path) as (seen, _):
        assert await seen.until(1) == [("synced", ["a"])]


async def test_events_may_arrive_in_any_pieces(tmp_path: Path) -> None:
    text = b"".join(event("ADDED", f"n{i}", 6 + i) for i in range(20))
    pieces = [text[i : i + 7] for i in range(0, len(text), 7)]
    async with reflecting(Server([listing(5)], [[*pieces, "open"]]), tmp_path) as (seen, _):
        assert (await seen.until(21))[1:] == [("applied", f"n{i}") for i in range(20)]


async def test_an_endless_line_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_BYTES", 1000)
    server = Server([listing(5)], [[b"x" * 5000, "open"], [event("ADDED", "c", 6), "open"]])
    async with reflecting(server, tmp_path) as (seen, _):
        assert (await seen.until(2))[-1] == ("applied", "c")


async def test_versions_that_went_back_list_again(tmp_path: Path) -> None:
    too_large = {"code": 504, "reason": "Timeout", "details": {"causes": [{"reason": "ResourceVersionTooLarge"}]}}
    behind, restored = listing(50), listing(7)  # a cache that is only behind, and etcd itself
    server = Server(
        [listing(50, "a"), behind, restored, listing(7, "b")], [["abort"], ["abort"], [event("ADDED", "c", 8), "open"]]
    )
    server.checks = [({"code": 504, "reason": "Timeout"}, 504), (too_large, 504), (too_large, 504)]
    async with reflecting(server, tmp_path) as (seen, reflector):
        assert await seen.until(4) == [("synced", ["a"]), REWOUND, ("synced", ["b"]), ("applied", "c")]
        assert reflector.lists == 2
    assert server.watched_from == ["50", "50", "7"]
    assert server.checked == ["50", "50", "50"]


async def test_lists_that_lead_nowhere_are_taken_ever_less_often(tmp_path: Path) -> None:
    server, clock = Server([listing(5)] * 6, [410] * 6), FakeClock()
    async with serving(server.answer, tmp_path) as client:
        backoff = Backoff(initial=1, cap=8, jitter=0)
        reflector = Reflector(client, Selection("/things"), Seen(), pacing=Pacing(clock, backoff=backoff))
        task = asyncio.create_task(reflector.run())
        pauses = []
        for _ in range(5):
            pauses.append(await clock.next_sleep())
            clock.advance(pauses[-1])
        task.cancel()
        await asyncio.wait({task})
    assert pauses == [1, 2, 4, 8, 8]


async def test_what_one_reflector_learns_of_versions_that_went_back_all_are_told(tmp_path: Path) -> None:
    """The other's version is one that the restored server has passed already, so it would never notice by itself."""
    server = Server([listing(5, "old"), listing(7, "new")], [["open"], [event("ADDED", "c", 8), "open"]])
    seen, history = Seen(), History()
    history.on_rewound(lambda: seen.calls.append(REWOUND))
    pacing = Pacing(backoff=Backoff(initial=0.01, cap=0.02))
    async with serving(server.answer, tmp_path) as client:
        reflector = Reflector(client, Selection("/things"), seen, pacing=pacing, history=history)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(reflector.run())
            await seen.until(1)
            history.rewound()
            assert await seen.until(4) == [("synced", ["old"]), REWOUND, ("synced", ["new"]), ("applied", "c")]
            running.cancel()
