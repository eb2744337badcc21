"""The benchmarks run: small, once, on the embedded control plane. What they find is the machine's business."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.guests.languages import GO

ROOT = Path(__file__).parents[2]
TIMES = {"all_running", "running_p50", "running_p99", "all_gone"}
OF_THE_NODE = {"cpu_ms_per_pod_to_running", "cpu_ms_per_pod_to_gone", "rss_mib"}


async def started(directory: Path, *arguments: str) -> asyncio.subprocess.Process:
    """`python -m benchmarks`, with its files below the directory."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks",
        *arguments,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(directory)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def found(directory: Path, *arguments: str) -> dict[str, Any]:
    """The JSON that it prints."""
    process = await started(directory, "--json", *arguments)
    out, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    answer: dict[str, Any] = json.loads(out)
    return answer


def left_over(directory: Path) -> list[str]:
    """Processes that work on files below the directory, and the files."""
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(directory) in command:
                lines.append(f"{entry.name}: {command}")
    return [*lines, *map(str, directory.iterdir())]


async def test_node_beside_the_floor(tmp_path: Path) -> None:
    answer = await found(tmp_path, "node", "memory", "--pods", "20", "--rounds", "1")
    node = answer["node"]
    assert set(node["node"]) == TIMES | OF_THE_NODE
    assert set(node["floor"]) == set(node["ratio"]) == TIMES
    assert all(value > 0 for value in (*node["node"].values(), *node["floor"].values()))
    assert node["ratios"]["all_gone"] == [node["node"]["all_gone"] / node["floor"]["all_gone"]]
    assert node["rounds"][0]["node"]["running_p50"] <= node["rounds"][0]["node"]["running_p99"]
    steps = list(answer["memory"].items())
    assert steps[0][0] == "Python"
    assert [name for name, _ in steps][-4:-2] == ["20 pods Running, burst 5", "all of them gone, burst 5"]
    assert steps[0][1] < answer["memory"]["started, no pods"] < 500
    assert left_over(tmp_path) == []


async def test_engine_and_one_at_a_time(tmp_path: Path) -> None:
    answer = await found(tmp_path, "wasmtime", "--pods", "5", "--rounds", "1", "--starts", "3")
    assert set(answer["wasmtime"]["node"]) == TIMES | OF_THE_NODE | {"guests_pss_mib_per_pod"}
    assert all(value > 0 for value in answer["wasmtime"]["node"].values())
    starts = answer["first_byte"]
    assert 0 < starts["node"]["p50"] <= starts["node"]["p99"]
    assert 0 < starts["floor"]["p50"] <= starts["floor"]["p99"]
    assert left_over(tmp_path) == []


async def test_pods_asleep(tmp_path: Path) -> None:
    figures = (await found(tmp_path, "asleep", "--pods", "5", "--hold", "2", "--handler", "wasmlet-dense", "--files"))[
        "asleep"
    ]
    cpu = figures["CPU, % of a core"]
    assert cpu["all"] == pytest.approx(sum(share for role, share in cpu.items() if role != "all"))
    assert {"node", "wasmlet-shim", "wasmlet-dense"} < set(cpu)
    assert 0 <= cpu["all"] < 100
    assert figures["RSS, MiB"]["node"] > 20
    assert left_over(tmp_path) == []


async def test_pods_behind_an_agent(tmp_path: Path) -> None:
    answer = await found(tmp_path, "remote", "--pods", "5", "--rounds", "1", "--hold", "0", "--starts", "3")
    remote = answer["remote"]
    for bursts in (remote["bursts"], remote["engine_bursts"]):
        assert set(bursts["floor"]) == TIMES | OF_THE_NODE
        assert set(bursts["node"]) == TIMES | OF_THE_NODE | {"cpu_ms_per_pod_agent"}
    one = remote["one_at_a_time"]
    assert 0 < one["local"]["p50"] < one["remote"]["p50"] <= one["remote"]["p99"]
    assert set(remote["idle"]) == {"node, local", "node, remote", "agent"}
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_nothing_is_left_when_it_is_interrupted(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = await started(tmp_path, "asleep", "--pods", "5", "--hold", "100")
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while b"asleep: 5 of 5 Running" not in (line := await process.stderr.readline()):
            assert line, "it ended before it was interrupted"
    process.send_signal(number)
    _, said = await process.communicate()
    assert process.returncode == code
    assert said.strip() == b""
    assert left_over(tmp_path) == []


async def test_a_real_cluster_needs_all_three(tmp_path: Path) -> None:
    process = await started(tmp_path, "--kubeconfig", "admin.kubeconfig")
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"--kubeconfig needs --node-credentials and --client-ca-file beside it" in said


async def test_components_that_serve(tmp_path: Path) -> None:
    """The one in Python, and `wasmtime serve`, are measured where they are there."""
    answer = await found(tmp_path, "components", "--rounds", "1", "--starts", "1")
    figures = answer["components"]
    assert all(value > 0 for columns in figures.values() for value in columns.values())
    for name in ("requests a second", "one request, p50, us", "PSS, MiB", "first answer after the pod is made, ms"):
        assert {"an instance per request", "reused"} <= figures[f"C: {name}"].keys()
    assert left_over(tmp_path) == []


@pytest.mark.timeout(900)
async def test_guests_that_serve(tmp_path: Path) -> None:
    """In C, and in Go where it is: its net/http takes the engine half a minute to compile."""
    answer = await found(tmp_path, "serving", "--pods", "1", "--rounds", "1", "--starts", "1")
    figures = answer["serving"]
    columns = {"native", "wasmlet", "wasmlet-dense"}
    for language in ("C", "Go net/http") if GO.exists() or shutil.which("go") else ("C",):
        for name in (
            "requests a second, one connection",
            "one request, p50, us",
            "one request, p50, more than native, us",
        ):
            assert figures[f"{language}: {name}"].keys() == columns
        first = figures[f"{language}: first answer after the pod is made, p50, ms"]
        assert first.keys() == columns - {"native"}
        assert all(value > 0 for value in first.values())
    assert left_over(tmp_path) == []


async def test_an_actor_beside_a_component(tmp_path: Path) -> None:
    answer = await found(tmp_path, "actors", "--pods", "2", "--rounds", "1", "--starts", "1")
    figures = answer["actors"]
    assert all(columns.keys() == {"actor", "component, reused"} for columns in figures.values())
    asleep = figures.pop("memory at rest, with the kernel's, KiB a pod", {"actor": 1.0})  # where there are groups
    assert asleep["actor"] != 0
    assert all(value > 0 for columns in figures.values() for value in columns.values())
    assert {"requests a second", "first answer after the pod is made, p50, ms"} <= figures.keys()
    assert left_over(tmp_path) == []


async def test_a_host_of_agents(tmp_path: Path) -> None:
    answer = await found(tmp_path, "host", "--pods", "3", "--hold", "0.5")
    host = answer["host"]
    assert host["count"] == 3
    assert host["rss_mib"] > host["rss_mib_empty"] > 10
    assert host["all_there"] > 0
    assert left_over(tmp_path) == []


async def test_an_operator_of_pools(tmp_path: Path) -> None:
    answer = await found(tmp_path, "operator", "--pods", "3", "--hold", "0.5")
    operator = answer["operator"]
    assert operator["count"] == 3
    assert operator["rss_mib"] >= operator["rss_mib_empty"] > 10
    assert operator["all_there"] > 0
    assert left_over(tmp_path) == []
