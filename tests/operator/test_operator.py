"""The operator's process: what it serves of itself, and what it says where it cannot begin."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.operator.forged import lone
from tests.operator.harness import CRDS, DEFINITION
from wasmlet.operator.health import STUCK_SECONDS, Metrics, Pulse, served
from wasmlet.testing import ControlPlane, FakeClock


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def test_what_is_served() -> None:
    port, metrics, clock, missing = free_port(), Metrics(), FakeClock(), "not yet"
    pulse = Pulse(clock)
    metrics.looked("edge", wanted=3, ready=2)
    metrics.failed("edge")
    async with served("127.0.0.1", port, metrics, pulse, lambda: missing), aiohttp.ClientSession() as session:

        async def get(path: str) -> tuple[int, str]:
            async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status, await answer.text()

        with pulse.looking("edge"):
            assert await get("/healthz") == (200, "ok")
            clock.advance(STUCK_SECONDS + 1)
            assert await get("/healthz") == (503, "a look at pool edge does not end")
        assert await get("/healthz") == (200, "ok")
        assert await get("/readyz") == (503, "not yet")
        missing = ""
        assert await get("/readyz") == (200, "ok")
        lines = (await get("/metrics"))[1].splitlines()
        assert 'wasmlet_pool_nodes{pool="edge",state="wanted"} 3.0' in lines
        assert 'wasmlet_pool_nodes{pool="edge",state="ready"} 2.0' in lines
        assert 'wasmlet_pool_failures_total{pool="edge"} 1.0' in lines
        metrics.forget("edge")
        assert "edge" not in (await get("/metrics"))[1]


async def test_it_is_ready_once_the_pools_are_listed(tmp_path: Path, kubectl: Path) -> None:
    port = free_port()
    async with asyncio.timeout(100), lone(tmp_path, kubectl) as fleet, aiohttp.ClientSession() as session:

        async def until(text: str) -> None:
            found = ""
            while found != text:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                        found = await answer.text()
                await asyncio.sleep(0.05)

        body = await fleet.admin.get(DEFINITION)
        await fleet.admin.delete(DEFINITION)
        await fleet.operator(f"--health-port={port}")
        await until("pools are not listed yet")
        del body["metadata"]["resourceVersion"], body["metadata"]["uid"], body["status"]
        await fleet.admin.create(CRDS, body)
        await until("ok")


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
