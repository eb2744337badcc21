"""The operator's process: what it serves of itself, and what it says where it cannot begin."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import aiohttp
import pytest

from wasmlet.operator.health import STUCK_SECONDS, Metrics, Pulse, served
from wasmlet.testing import ControlPlane, FakeClock


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def test_what_is_served() -> None:
    port, metrics, clock, known = free_port(), Metrics(), FakeClock(), False
    pulse = Pulse(clock)
    metrics.looked("edge", wanted=3, ready=2)
    metrics.failed("edge")
    async with served("127.0.0.1", port, metrics, pulse, lambda: known), aiohttp.ClientSession() as session:

        async def get(path: str) -> tuple[int, str]:
            async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status, await answer.text()

        with pulse.looking("edge"):
            assert await get("/healthz") == (200, "ok")
            clock.advance(STUCK_SECONDS + 1)
            assert await get("/healthz") == (503, "a look at pool edge does not end")
        assert await get("/healthz") == (200, "ok")
        assert (await get("/readyz"))[0] == 503
        known = True
        assert await get("/readyz") == (200, "ok")
        lines = (await get("/metrics"))[1].splitlines()
        assert 'wasmlet_pool_nodes{pool="edge",state="wanted"} 3.0' in lines
        assert 'wasmlet_pool_nodes{pool="edge",state="ready"} 2.0' in lines
        assert 'wasmlet_pool_failures_total{pool="edge"} 1.0' in lines
        metrics.forget("edge")
        assert "edge" not in (await get("/metrics"))[1]


async def said(*arguments: str) -> tuple[int | None, str]:
    """The exit code of `wasmlet operator`, and what it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from wasmlet.cli import main; main()", "operator", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_a_port_that_is_taken_is_said() -> None:
    async with ControlPlane() as plane:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            code, text = await said(f"--kubeconfig={plane.kubeconfig}", f"--health-port={port}")
    assert (code, text.count("Traceback")) == (1, 0), text
    assert f"127.0.0.1:{port} cannot be listened on" in text


async def test_a_cluster_without_the_definition_of_pools_has_nothing_to_clean_up() -> None:
    async with ControlPlane() as plane:
        code, text = await said(f"--kubeconfig={plane.kubeconfig}", "--cleanup")
    assert code == 0, text
    assert "nothing is to be removed" in text


@pytest.mark.parametrize("argument", ["--kubeconfig=/no/such/file", "--health-port=x"])
async def test_what_is_wrong_is_said_in_a_line(argument: str, tmp_path: Path) -> None:
    code, text = await said(argument)
    assert code in (1, 2), text
    assert "Traceback" not in text, text
