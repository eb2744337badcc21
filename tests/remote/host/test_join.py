"""The agent's side of joining: whom it trusts, what it keeps, and that it never spins."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from wasmlet_agent.authorities import ca_hash
from wasmlet_agent.join.joining import JoinConfig, Joining, base_url
from wasmlet_agent.keys import make_keys
from wasmlet_agent.protocol.codec import encode
from wasmlet_agent.protocol.failures import Failure
from wasmlet_agent.protocol.joining import hash_of

from tests.remote.agents import PATIENCE
from tests.remote.host.far_host import TOKEN, FarHost, joining
from tests.remote.host.known import until
from wasmlet import ConfigError
from wasmlet.testing import FakeClock

# --- the key


async def test_a_key_is_made_kept_and_used_from_then_on(far: FarHost, tmp_path: Path) -> None:
    joined = await joining(far, tmp_path).joined()
    assert far.keys == {"edge-1": hash_of(joined.key)}
    file = tmp_path / "joined.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert TOKEN not in file.read_text()
    assert joined.key not in repr(joined)
    assert await joining(far, tmp_path, token=None).joined() == joined
    assert len(far.joins) == 1
    assert joined.key not in str(far.joins)


async def test_a_join_whose_answer_is_lost_is_repeated_with_the_same_key(far: FarHost, tmp_path: Path) -> None:
    far.lose = True
    await joining(far, tmp_path).joined()
    first, second = far.joins
    assert first == second


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"token": "abcd.0123456789abcdef012X"}, "refuses this agent: no such token"),
        ({"token": "nonsense"}, "--token: expected ID.SECRET"),
        ({"token": None}, "has not joined .* give --token-file"),
        ({"token": None, "token_file": Path("/nowhere")}, "--token-file /nowhere"),
        ({"ca_file": Path("/nowhere")}, "--ca-file /nowhere: expected certificates"),
        ({"ca_file": Path(__file__)}, "--ca-file .*: expected certificates"),
    ],
)
async def test_a_token_that_is_wrong_is_told(far: FarHost, tmp_path: Path, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        await joining(far, tmp_path, **settings).joined()


async def test_an_agent_that_has_joined_needs_no_token_file(far: FarHost, tmp_path: Path) -> None:
    joined = await joining(far, tmp_path).joined()
    without = joining(far, tmp_path, token=None, token_file=tmp_path / "gone")
    assert await without.joined() == joined
    assert not await without.again(joined)


async def test_an_answer_that_makes_no_sense_does_not_end_an_agent_that_has_joined(
    far: FarHost, tmp_path: Path
) -> None:
    joined = await joining(far, tmp_path).joined()
    far.refusal = (200, b"<html>")
    assert not await joining(far, tmp_path).again(joined)


async def test_a_token_goes_to_its_host_and_to_nobody_that_it_names(far: FarHost, tmp_path: Path) -> None:
    """A redirect may lead anywhere, also to plain HTTP."""

    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"{far.url}/v1/join")

    app = web.Application()
    app.router.add_post("/v1/join", elsewhere)
    async with TestServer(app, host="127.0.0.1") as server:
        config = JoinConfig(node_name="edge-1", token=TOKEN, state_dir=tmp_path)
        with pytest.raises(ConfigError, match="HTTP 307"):
            await Joining(config, str(server.make_url("/")), tmp_path).joined()
    assert far.joins == []


@pytest.mark.parametrize(
    "refusal", [(403, encode(Failure("NotAdmitted", "the token has expired"))), (400, b"<html>"), (403, b"x" * 200_000)]
)
async def test_a_refusal_ends_the_agent_and_is_told(far: FarHost, tmp_path: Path, refusal: tuple[int, bytes]) -> None:
    far.refusal = refusal
    with pytest.raises(ConfigError, match=r"refuses this agent: (the token has expired|expected an answer)"):
        await joining(far, tmp_path).joined()


async def test_a_host_that_is_away_is_waited_for(far: FarHost, tmp_path: Path) -> None:
    clock = FakeClock()
    far.refusal = (503, b"")
    config = JoinConfig(node_name="edge-1", token=TOKEN, state_dir=tmp_path)
    task = asyncio.create_task(Joining(config, far.url, tmp_path, clock).joined())
    async with asyncio.timeout(PATIENCE):
        for tries in range(1, 5):
            await until(lambda tries=tries: len(far.joins) == tries)
            left = await clock.next_sleep(at_least=0.5 * 2 ** (tries - 1))
            clock.advance(left + 0.01 if tries < 4 else 0)
        far.refusal = None
        clock.advance(60)
        assert (await task).taken


async def test_what_was_joined_before_is_not_left_without_a_token(far: FarHost, tmp_path: Path) -> None:
    await joining(far, tmp_path).joined()
    with pytest.raises(ConfigError, match=r"has joined .* as edge-1: give --token-file to join .* as edge-2"):
        await joining(far, tmp_path, token=None, node_name="edge-2").joined()
    assert (await joining(far, tmp_path, node_name="edge-2").joined()).name == "edge-2"


async def test_a_file_that_cannot_be_read_is_told(far: FarHost, tmp_path: Path) -> None:
    (tmp_path / "joined.json").write_bytes(b"{rubbish")
    with pytest.raises(ConfigError, match=r"joined\.json cannot be read"):
        await joining(far, tmp_path).joined()


@pytest.mark.parametrize(
    "url",
    [
        "host.example",
        "http://host.example",
        "https://me:pw@host",
        "ftp://127.0.0.1",
        "https://h/path",
        "http://[::1",
        "https://host..example",
    ],
)
def test_a_host_that_is_none_or_not_safe_is_told(url: str) -> None:
    with pytest.raises(ConfigError, match=r"expected the URL of a host|plain http"):
        base_url(url)


@pytest.mark.parametrize("digest", ["abc", "sha256:abc", "sha256:" + "G" * 64, "sha512:" + "a" * 64])
def test_a_hash_that_is_none_is_told(digest: str) -> None:
    with pytest.raises(ConfigError, match="--ca-hash: expected sha256:"):
        JoinConfig(ca_hash=digest)


# --- whom it trusts


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[tuple[FarHost, Path]]:
    """A host with TLS, and where its certificates are."""
    host, directory = FarHost(), tmp_path / "keys"
    make_keys(directory, ["127.0.0.1"], datetime.now(UTC) + timedelta(days=1))
    from wasmlet_remote.host.config import HostConfig

    config = HostConfig(
        tls_cert_file=directory / "agent.crt", tls_key_file=directory / "agent.key", tls_ca_file=directory / "ca.crt"
    )
    host.authorities = config.authorities()
    server = TestServer(host.app(), host="127.0.0.1", scheme="https")
    await server.start_server(ssl=config.context())
    host.url = str(server.make_url("/")).rstrip("/")
    yield host, directory
    await server.close()


def hash_in(file: Path) -> str:
    return ca_hash(x509.load_pem_x509_certificate(file.read_bytes()))


async def test_a_host_is_known_by_the_hash_of_its_authority(secure: tuple[FarHost, Path], tmp_path: Path) -> None:
    far, keys = secure
    joined = await joining(far, tmp_path, ca_hash=hash_in(keys / "ca.crt")).joined()
    assert joined.authorities == (keys / "ca.crt").read_text()
    assert (await joining(far, tmp_path, token=None).joined()) == joined
    file = await joining(far, tmp_path, ca_file=keys / "ca.crt", node_name="edge-2").joined()
    assert file.taken


async def test_a_host_that_is_another_gets_no_token(secure: tuple[FarHost, Path], tmp_path: Path) -> None:
    far, _ = secure
    make_keys(tmp_path / "others", ["127.0.0.1"], datetime.now(UTC) + timedelta(days=1))
    other = tmp_path / "others" / "ca.crt"
    with pytest.raises(ConfigError, match="another one, or forged"):
        await joining(far, tmp_path, ca_hash=hash_in(other)).joined()
    far.authorities = other.read_bytes()  # it shows the right authority, and has no certificate of it
    for name, settings in (("a", {"ca_hash": hash_in(other)}), ("b", {"ca_file": other}), ("c", {})):
        (tmp_path / name).mkdir()
        with pytest.raises(ConfigError, match="is not vouched for"):
            await joining(far, tmp_path / name, **settings).joined()
    assert far.joins == []


@pytest.mark.parametrize(
    ("options", "sent", "says"),
    [
        (["--token=nonsense"], b"", "Warning: --token shows the token to every user of this machine"),
        (["--token-file=-"], b"nonsense", "Error: --token-file -: expected ID.SECRET"),
        (["--token-file=-"], b"abcd.0123456789abcdef0123\n", "the host cannot be joined"),
    ],
)
async def test_a_token_comes_by_standard_input_and_not_by_the_arguments(
    tmp_path: Path, options: list[str], sent: bytes, says: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "wasmlet_agent", "join", "http://127.0.0.1:1", "--provider=wasmtime",
        "--node-name=edge-1", f"--state-dir={tmp_path}", *options,
        stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(sent)
    process.stdin.close()
    async with asyncio.timeout(PATIENCE):
        while line := (await process.stderr.readline()).decode():
            if says in line:
                break
        else:
            pytest.fail("it never said so")
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    await process.communicate()
