"""RemoteProvider and an agent over TLS: each knows the other by what `wasmlet-agent keys` makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from wasmlet_agent.keys import make_keys
from wasmlet_remote import RemoteProvider

import wasmlet
from tests.remote.agents import PATIENCE, AgentProcess
from tests.remote.agents import running as agent_running


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys", ["127.0.0.1"], datetime.now(UTC) + timedelta(days=1))
    return tmp_path / "keys"


@pytest.fixture
async def agent(tmp_path: Path, keys: Path) -> AsyncIterator[AgentProcess]:
    shown = {
        "tls-cert-file": "agent.crt",
        "tls-key-file": "agent.key",
        "client-ca-file": "ca.crt",
        "token-file": "token",
    }
    async with agent_running(
        tmp_path / "agent", *(f"--{option}={keys / file}" for option, file in shown.items())
    ) as agent:
        yield agent


CERTIFICATE = {"tls_ca_file": "ca.crt", "tls_cert_file": "client.crt", "tls_key_file": "client.key"}
TOKEN = {"tls_ca_file": "ca.crt", "token_file": "token"}


async def started(agent: AgentProcess, keys: Path, files: dict[str, str], stack: AsyncExitStack) -> RemoteProvider:
    """A provider that shows these files."""
    settings: dict[str, Any] = {name: keys / file for name, file in files.items()}
    provider = RemoteProvider(RemoteProvider.Config(endpoint=agent.url, **settings))
    stack.push_async_callback(provider.stop)
    async with asyncio.timeout(PATIENCE):
        await provider.start(wasmlet.NodeContext("n1", "127.0.0.1", 110, keys))
    return provider


@pytest.mark.parametrize("files", [CERTIFICATE, TOKEN], ids=["certificate", "token"])
async def test_pods_and_streams_go_over_tls(agent: AgentProcess, keys: Path, files: dict[str, str]) -> None:
    async with AsyncExitStack() as stack:
        provider = await started(agent, keys, files, stack)
        metadata = {"namespace": "default", "name": "p", "uid": "u"}
        container = {"name": "c", "command": ["script"], "args": ["print", "hello"]}
        pod = wasmlet.Pod({"metadata": metadata, "spec": {"containers": [container]}})
        await provider.create_pod(pod, wasmlet.Inputs(secrets={"s": {"data": {"k": "x" * 3_000_000}}}))
        said = b"".join([piece async for piece in provider.logs(pod.key, "c", wasmlet.LogOptions())])
        assert said == b"hello\n"
        streams = Streams()
        assert await provider.exec(pod.key, "c", ["echo", "x" * 2_000, ";", "exit", "7"], streams) == 7
        assert bytes(streams.out) == b"x" * 2_000 + b"\n"
        ended = await provider.delete_pod(pod.key, 0)
        assert ended is not None


async def test_who_shows_nothing_is_told_what_to_do(agent: AgentProcess, keys: Path) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(wasmlet.ConfigError, match="--token-file and --tls-cert-file"):
            await started(agent, keys, {"tls_ca_file": "ca.crt"}, stack)


async def test_an_agent_that_nobody_vouches_for_is_not_believed(agent: AgentProcess, keys: Path) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(wasmlet.ConfigError, match="--tls-ca-file"):
            await started(agent, keys, {"token_file": "token"}, stack)


class Streams:
    """A caller that only listens."""

    stdin = tty = stderr = False
    stdout = True

    def __init__(self) -> None:
        self.out = bytearray()

    async def read_stdin(self) -> bytes:
        return b""

    async def write_stdout(self, data: bytes) -> None:
        self.out += data

    async def write_stderr(self, data: bytes) -> None:
        raise AssertionError("stderr is not connected")

    async def next_size(self) -> tuple[int, int]:
        raise AssertionError("there is no terminal")
