"""Who may drive an agent, and what `wasmlet-agent keys` makes for it."""

from __future__ import annotations

import asyncio
import re
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from wasmlet_agent.agent import Agent, Places
from wasmlet_agent.auth import Guard
from wasmlet_agent.config import AgentConfig
from wasmlet_agent.protocol.failures import Unauthorized
from wasmlet_agent.server import Server

from tests.remote.agents import PATIENCE, REAL, AgentProcess, Caller, calling, running
from wasmlet.errors import ConfigError
from wasmlet.kubelet.listening import Limits, listening
from wasmlet.testing import ReferenceProvider
from wasmlet.tls import client_context, show

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def command(*args: str) -> tuple[int, str, str]:
    """Run `wasmlet-agent`: its exit code, and what it wrote to both outputs."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *REAL, *args, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys") / "made"
    code, out, err = await command("keys", str(directory), "127.0.0.1", "device.example", "--port", "9443")
    assert (code, err) == (0, "")
    assert f"--tls-cert-file {directory}/agent.crt" in out
    assert "wasmlet-remote --endpoint https://127.0.0.1:9443" in out
    return directory


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AgentProcess]:
    options = (
        f"--tls-cert-file={keys}/agent.crt",
        f"--tls-key-file={keys}/agent.key",
        f"--client-ca-file={keys}/ca.crt",
        f"--token-file={keys}/token",
    )
    async with running(tmp_path_factory.mktemp("agent") / "state", *options) as found:
        yield found


def context(keys: Path, shown: Path | None = None) -> object:
    """TLS that trusts the agent of these keys, and shows the client certificate of others."""
    made = client_context((keys / "ca.crt").read_bytes())
    if shown is not None:
        show(made, (shown / "client.crt").read_bytes(), (shown / "client.key").read_bytes())
    return made


async def test_files_are_private_and_never_written_over(keys: Path) -> None:
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in keys.iterdir()} == dict.fromkeys(  # noqa: ASYNC240
        ("ca.key", "ca.crt", "agent.key", "agent.crt", "client.key", "client.crt", "token"), 0o600
    )
    before = (keys / "token").read_bytes()
    code, _, err = await command("keys", str(keys))
    assert code == 1
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1
    assert (keys / "token").read_bytes() == before


async def test_a_client_certificate_drives(agent: AgentProcess, keys: Path) -> None:
    async with calling(agent, verify=context(keys, keys)) as caller:
        assert await caller.pods() == {}


async def test_a_token_drives(agent: AgentProcess, keys: Path) -> None:
    token = (keys / "token").read_text().strip()
    async with calling(agent, verify=context(keys), headers={"Authorization": f"Bearer {token}"}) as caller:
        assert await caller.pods() == {}


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer", "Basic {}", "{}", "Bearer {}x"])
async def test_who_shows_nothing_that_suffices_does_not(agent: AgentProcess, keys: Path, header: str | None) -> None:
    token = (keys / "token").read_text().strip()
    headers = {} if header is None else {"Authorization": header.format(token)}
    async with calling(agent, claim=False, verify=context(keys), headers=headers) as caller:
        for method, path in (("POST", "/v1/session"), ("GET", "/v1/pods"), ("GET", "/v1/nothing"), ("GET", "/x")):
            assert isinstance(await caller.error(method, path, 401), Unauthorized)
        assert (await caller.ask("GET", "/healthz")).json() == {}
    assert token not in "".join(agent.log)


async def test_a_certificate_of_another_authority_does_not(agent: AgentProcess, keys: Path, tmp_path: Path) -> None:
    assert (await command("keys", str(tmp_path / "other"), "127.0.0.1"))[0] == 0
    caller = Caller(agent, verify=context(keys, tmp_path / "other"))
    with pytest.raises(httpx.TransportError):
        await caller.ask("GET", "/healthz")
    await caller.close()


async def test_no_web_page_drives_an_agent_on_loopback(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as agent, calling(agent) as caller:
        rest = {"json": {}, "headers": {"Origin": "http://evil.example"}}
        assert isinstance(await caller.error("POST", "/v1/session", 401, **rest), Unauthorized)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"listen": "0.0.0.0:0"}, "plain HTTP is for loopback only"),
        ({"listen": "8443"}, "expected ADDRESS:PORT"),
        ({"listen": "host:1"}, "expected ADDRESS:PORT"),
        ({"listen": "127.0.0.1:70000"}, "expected ADDRESS:PORT"),
        ({"tls_cert_file": Path("a")}, "give --tls-cert-file and --tls-key-file both"),
        ({"tls_cert_file": Path("a"), "tls_key_file": Path("b")}, "who may drive this agent?"),
        ({"client_ca_file": Path("a")}, "over TLS only"),
        ({"token_file": Path("/nowhere")}, "/nowhere: No such file"),
        ({"token_file": Path("/dev/null")}, "at least 16 printable characters"),
    ],
)
async def test_a_wrong_setting_is_told(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        AgentConfig(**settings).guard()


async def test_a_wrong_provider_is_told_in_a_line(tmp_path: Path) -> None:
    code, _, err = await command("--provider=nothing", f"--state-dir={tmp_path}")
    assert code == 2
    assert err.startswith("Error: there is no provider")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8443", 404),
        ("localhost", 404),
        ("[::1]:1", 404),
        ("rebound.example:8443", 401),
        ("", 401),
        ("[", 401),
    ],
)
async def test_an_open_agent_is_asked_by_a_name_of_this_machine(tmp_path: Path, host: str, status: int) -> None:
    """A web page could have its own name lead here, and would be asked from nowhere else then."""
    async with running(tmp_path / "state") as agent, calling(agent) as caller:
        answer = await caller.ask("GET", "/v1/pods/nobody", headers={"Host": host}, expect=status)
        assert (b"Host: expected localhost" in answer.content) == (status == 401)


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTT", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: "])
async def test_who_does_not_finish_the_head_of_a_request_is_cut_off(tmp_path: Path, sent: bytes) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    async with Agent(ReferenceProvider, Places(tmp_path / "state")) as agent:
        runner = Server(agent, Guard(open=True)).runner()
        await runner.setup()
        async with listening(runner, ("127.0.0.1", 0), None, Limits(head_seconds=0.2)) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(sent)
            async with asyncio.timeout(PATIENCE):
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
            writer.close()
