"""The client: each kind of answer is its own error, and only what may be repeated is."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.kube.server import serving, write_kubeconfig
from wasmlet.kube import Client, errors, load_identity
from wasmlet.kube import client as module
from wasmlet.testing import ControlPlane

KINDS = [
    (400, "BadRequest", errors.BadRequest),
    (401, "Unauthorized", errors.Unauthorized),
    (403, "Forbidden", errors.Forbidden),
    (404, "NotFound", errors.ObjectNotFound),
    (409, "Conflict", errors.Conflict),
    (409, "AlreadyExists", errors.AlreadyExists),
    (410, "Expired", errors.Gone),
    (422, "Invalid", errors.Invalid),
    (500, "InternalError", errors.ServerError),
    (503, "ServiceUnavailable", errors.ServerError),
    (405, "MethodNotAllowed", errors.ApiError),
]


async def in_two_parts(request: web.Request, more: asyncio.Event) -> web.StreamResponse:
    """An answer of which there is more once that is set."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"one")
    await more.wait()
    await response.write(b"two")
    return response


@pytest.mark.parametrize(("status", "reason", "kind"), KINDS)
async def test_each_answer_has_its_error(tmp_path: Path, status: int, reason: str, kind: type[errors.ApiError]) -> None:
    async def answer(request: web.Request) -> web.Response:
        body = {"kind": "Status", "code": status, "reason": reason, "message": "why", "details": {"name": "x"}}
        return web.json_response(body, status=status)

    async with serving(answer, tmp_path) as client:
        with pytest.raises(errors.ApiError) as raised:
            await client.get("/api/v1/nodes/x")
    assert type(raised.value) is kind
    assert (raised.value.status, raised.value.reason, str(raised.value)) == (status, reason, "why")
    assert raised.value.details == {"name": "x"}


async def test_a_body_that_is_no_status_is_quoted_and_shortened(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>" + "x" * 1000)

    async with serving(answer, tmp_path) as client:
        with pytest.raises(errors.ServerError, match=r"HTTP 502: <html>xxx") as raised:
            await client.get("/")
    assert len(str(raised.value)) < 250


async def test_a_request_that_is_put_off_is_repeated_after_the_time_named(tmp_path: Path) -> None:
    seen: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(asyncio.get_running_loop().time())
        if len(seen) < 3:
            return web.json_response({"kind": "Status", "code": 429}, status=429, headers={"Retry-After": "0.05"})
        return web.json_response({"ok": True})

    async with serving(answer, tmp_path) as client:
        assert await client.patch("/x", {"a": 1}) == {"ok": True}
    assert len(seen) == 3
    assert seen[1] - seen[0] >= 0.05


async def test_text_that_is_not_unicode_is_sent_all_the_same(tmp_path: Path) -> None:
    """Half a surrogate pair, as Python has it of a file's name that is not UTF-8."""
    came: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        came.append(await request.json())
        return web.json_response({})

    async with serving(answer, tmp_path) as client:
        await client.patch("/x", {"status": {"message": "file a\udcff is bad, ü"}})
    assert came == [{"status": {"message": "file a? is bad, ü"}}]


async def test_an_answer_that_is_no_object_is_an_error(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="[1]" if request.path == "/list" else "<html>")

    async with serving(answer, tmp_path) as client:
        with pytest.raises(errors.ServerError, match="expected an object"):
            await client.get("/list")
        with pytest.raises(errors.ServerError, match="expected JSON"):
            await client.get("/page")


async def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port, and nobody answers
        kubeconfig = write_kubeconfig(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}")
        async with Client(await load_identity(kubeconfig)) as client:
            with pytest.raises(errors.Unreachable, match="cannot be reached"):
                await client.get("/")


async def test_a_connection_that_breaks_and_one_that_stalls(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/stall":
            await asyncio.Event().wait()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(answer, tmp_path) as client:
        with pytest.raises(errors.Unreachable, match="broke"):
            await client.get("/break")
        with pytest.raises(errors.Unreachable, match="did not answer in time"):
            await client.request("GET", "/stall", seconds=0.05)


async def test_a_rotated_token_is_read_again_after_a_401(tmp_path: Path) -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        if seen[-1] != "Bearer new":
            return web.json_response({"kind": "Status", "code": 401, "message": "no"}, status=401)
        return web.json_response({"who": "me"})

    async with serving(answer, tmp_path) as probe:
        server = probe.identity.server
        write_kubeconfig(tmp_path, server, token="old")
        async with Client(await load_identity(tmp_path / "kubeconfig")) as client:
            write_kubeconfig(tmp_path, server, token="new")
            assert await client.get("/x") == {"who": "me"}
            write_kubeconfig(tmp_path, server, token="newer")
            assert await client.get("/x") == {"who": "me"}
    assert seen == ["Bearer old", "Bearer new", "Bearer new"]


async def test_a_watch_goes_on_while_credentials_change_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELOAD_SECONDS", 0)
    token, more = "first", asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {token}":
            return web.json_response({"kind": "Status", "code": 401, "message": "no"}, status=401)
        if request.path != "/watch":
            return web.json_response({"who": token})
        return await in_two_parts(request, more)

    async with serving(answer, tmp_path) as probe:
        server = probe.identity.server
        write_kubeconfig(tmp_path, server, token=token)
        async with Client(await load_identity(tmp_path / "kubeconfig")) as client:
            async with asyncio.timeout(30), client.stream("/watch", {}) as content:
                assert await content.read(100) == b"one"
                for token in ("second", "third", "fourth"):
                    write_kubeconfig(tmp_path, server, token=token)
                    assert await client.get("/x") == {"who": token}
                more.set()
                assert await content.read(100) == b"two"
            assert not client._retired


async def test_credentials_that_cannot_be_read_again_are_no_more_than_not_accepted(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "code": 401, "message": "no"}, status=401)

    async with serving(answer, tmp_path) as client:
        (tmp_path / "kubeconfig").unlink()
        with pytest.raises(errors.Unauthorized):
            await client.get("/x")


async def test_other_credentials_are_used_from_the_next_request_on(tmp_path: Path) -> None:
    seen, more = [], asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        if request.path != "/watch":
            return web.json_response({})
        return await in_two_parts(request, more)

    async with serving(answer, tmp_path) as probe:
        server = probe.identity.server
        async with Client(await load_identity(write_kubeconfig(tmp_path, server, token="old"))) as client:
            async with asyncio.timeout(30), client.stream("/watch", {}) as content:
                assert await content.read(100) == b"one"
                await client.use(await load_identity(write_kubeconfig(tmp_path, server, token="new")))
                await client.get("/x")
                more.set()
                assert await content.read(100) == b"two"
            assert not client._retired
    assert seen == ["Bearer old", "Bearer new"]


GIVES_UP = """
import asyncio, sys, warnings
from pathlib import Path
from wasmlet.cli.execution import run_loop
from wasmlet.kube import Client, load_identity

warnings.simplefilter("error")

async def watch(client):
    async with client.stream("/api/v1/pods", {"watch": "1"}) as content:
        await content.readline()

async def work():
    async with Client(await load_identity(Path(sys.argv[1]))) as client:
        watches = [asyncio.create_task(watch(client)) for _ in range(20)]
        await client.get("/version")
        for turns in range(20):
            await asyncio.sleep(0.001)
            watches[turns].cancel()
        await asyncio.gather(*watches, return_exceptions=True)

run_loop(work())
"""


async def test_nothing_is_open_at_the_end_of_a_program_that_gives_up_watches() -> None:
    """uvloop says so of each connection over TLS that it closes itself, with a traceback."""
    async with ControlPlane() as plane:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", GIVES_UP, str(plane.kubeconfig), stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
    assert (process.returncode, said.decode()) == (0, "")
