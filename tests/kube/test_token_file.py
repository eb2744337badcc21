"""A token file on a file system that does not answer."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import attrs
import pytest
from aiohttp import web

from tests.kube.server import Handler, serving
from wasmlet.kube import authorization
from wasmlet.kube.authorization import TokenFile
from wasmlet.testing import FakeClock


def hearing(heard: list[str]) -> Handler:
    """Answers each request, and notes which token it came with."""

    async def respond(request: web.Request) -> web.Response:
        heard.append(request.headers["Authorization"])
        return web.json_response({})

    return respond


def token_file(path: Path) -> tuple[TokenFile, FakeClock, int]:
    """One that has been read, and whose next reading, which is due, hangs until `answer`; with what that needs."""
    clock = FakeClock()
    path.write_text("good")
    opened = TokenFile.opened(path, clock)
    path.unlink()
    os.mkfifo(path)
    clock.advance(authorization.READ_SECONDS)
    return opened, clock, os.open(path, os.O_RDWR)


def answer(path: Path, writer: int, token: str) -> None:
    """End the reading that hangs; later ones read a file."""
    os.write(writer, token.encode())
    path.unlink()
    path.write_text(token)
    os.close(writer)


async def test_it_keeps_no_request_waiting_and_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authorization, "ANSWER_SECONDS", 0.1)
    heard: list[str] = []
    token, clock, writer = token_file(tmp_path / "token")
    async with serving(hearing(heard), tmp_path, token="good") as client:
        client.identity = attrs.evolve(client.identity, authorization=token)
        try:
            async with asyncio.timeout(30):
                await client.get("/x")
                reading = token._reading
                assert reading is not None
                clock.advance(authorization.READ_SECONDS)
                await client.get("/x")
                assert token._reading is reading
        finally:
            answer(tmp_path / "token", writer, "next\n")
        await asyncio.wait({reading})
        await client.get("/x")
    assert heard == ["Bearer good", "Bearer good", "Bearer next"]


async def test_nobody_but_its_own_server_hears_the_token(tmp_path: Path) -> None:
    before: list[str] = []
    after: list[str] = []
    token, _, writer = token_file(tmp_path / "token")
    (tmp_path / "other").mkdir()
    async with (
        serving(hearing(before), tmp_path, token="good") as client,
        serving(hearing(after), tmp_path / "other", token="other") as other,
    ):
        client.identity = attrs.evolve(client.identity, authorization=token)
        request = asyncio.create_task(client.get("/x"))
        while token._reading is None:  # noqa: ASYNC110 - what is waited for is within the request
            await asyncio.sleep(0)
        await client.use(other.identity)
        answer(tmp_path / "token", writer, "good")
        async with asyncio.timeout(30):
            await request
            await client.get("/x")
    assert (before, after) == (["Bearer good"], ["Bearer other"])
