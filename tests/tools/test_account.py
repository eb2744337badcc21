"""What `account` counts with: system calls as strace writes them, phases, and bursts that end when pods cannot run."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
import wasmtime

from benchmarks import phases, singles, strace
from benchmarks.burst import Load, burst
from benchmarks.cluster import open_cluster
from benchmarks.phases import BORDERS, Mark
from benchmarks.processes import BenchmarkFailed
from benchmarks.report import Progress
from tests.tools.test_benchmarks import found, left_over, started
from wasmlet.concurrency import in_thread

PROGRAM = """
import ctypes, os, sys, threading

sys.stdin.readline()
os.umask(0o027)
os.umask(0o022)                                      # its result, the one before, is in octal
os.mkdir("a")
try:
    os.mkdir("a")                                    # fails, so it makes nothing
except FileExistsError:
    pass
os.close(os.open("a/O_CREAT", os.O_RDWR | os.O_CREAT))
os.close(os.open("a/O_CREAT", os.O_RDONLY))          # a name is no flag
os.rename("a/O_CREAT", "a/two")
os.symlink("two", "a/three")
os.close(os.memfd_create("four"))
thread = threading.Thread(target=os.unlink, args=("a/three",))
thread.start()
thread.join()
descriptor = os.open("a", os.O_RDONLY)
os.unlink("two", dir_fd=descriptor)
os.mkdir("b", dir_fd=descriptor)
os.rmdir("b", dir_fd=descriptor)
os.rmdir("a")
for name in (b"named", b""):
    if not os.fork():
        if name:
            ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
        os.mkdir("c")
        os.rmdir("c")
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not strace.available(), reason="there is no strace")
async def test_system_calls_by_process_and_what_they_make_and_remove(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, cwd=tmp_path, stdin=asyncio.subprocess.PIPE
    )
    output = tmp_path / "calls"
    async with strace.following({process.pid: "program"}, output) as roles:
        await process.communicate(b"go\n")
    assert process.returncode == 0
    calls = strace.read(output, roles)
    by_role = {role: Counter(call.effect for call in calls if call.role == role) for role in {c.role for c in calls}}
    assert by_role.keys() == {"program", "named", strace.FORKED}
    for effects in by_role.values():
        del effects[""]
    assert by_role["program"] == {
        strace.DIRECTORIES_MADE: 2,
        strace.DIRECTORIES_REMOVED: 2,
        strace.FILES_MADE: 2,
        strace.FILES_REMOVED: 2,
        strace.RENAMED: 1,
        strace.MEMORY_FILES: 1,
    }
    assert by_role["named"] == by_role[strace.FORKED] == {strace.DIRECTORIES_MADE: 1, strace.DIRECTORIES_REMOVED: 1}
    names = Counter(call.name for call in calls if call.role == "program")
    assert names["mkdir"] + names["mkdirat"] == 3, "one of them failed"
    times = [call.at for call in calls]
    assert times == sorted(times)


@pytest.mark.skipif(not strace.available(), reason="there is no strace")
async def test_a_process_that_is_not_there_cannot_be_followed(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    with pytest.raises(BenchmarkFailed, match=rf"could not follow processes \[{process.pid}\]: strace: .*attach"):
        async with strace.following({process.pid: "gone"}, tmp_path / "calls"):
            pass


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/v1/namespaces/default/pods/web/status", "pods/status"),
        ("/api/v1/namespaces/default/pods/web", "pods"),
        ("/api/v1/namespaces/default/events", "events"),
        ("/api/v1/namespaces/default", "namespaces"),
        ("/api/v1/nodes/one/status", "nodes/status"),
        ("/api/v1/pods", "pods"),
        ("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/one", "leases"),
        ("/apis/node.k8s.io/v1/runtimeclasses", "runtimeclasses"),
        ("/version", "/version"),
    ],
)
def test_what_a_request_is_about(path: str, kind: str) -> None:
    assert phases.kind_of(path) == kind


async def test_what_is_handed_to_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    kind, counts = type(asyncio.get_running_loop()), Counter[str]()
    monkeypatch.setattr(kind, "run_in_executor", kind.run_in_executor)  # so that it is as before when this is over
    phases._count_hand_overs(counts)
    await asyncio.to_thread(os.getpid)
    await in_thread(os.getcwd)
    assert counts == {"handed to a thread: getpid": 1, "handed to a thread: getcwd": 1}


def test_what_falls_into_a_phase() -> None:
    def pod(at: int) -> dict[str, Mark]:
        return {
            border: Mark(at + place, (at + place) / 1000, 0.0, {"request": at + place})
            for place, border in enumerate(BORDERS)
        }

    run = singles.Run([pod(100), pod(200)], [0.5, 0.5])
    table = singles.table(run)
    assert table["time, p50, ms"]["start"] == 1000
    assert table["time, p50, ms"]["first byte"] == 500
    assert table["time, p50, ms"]["all"] == 7000, "the pauses of the benchmark are left out"
    assert table["CPU of the node, p50, ms"]["end"] == pytest.approx(1)
    assert table["request"]["removal"] == 1
    assert table["request"]["after"] == 100 - len(BORDERS) + 1
    made = [
        strace.Call("node", 99.5, "read"),  # before the first pod
        strace.Call("node", 103.5, "openat", strace.FILES_MADE),
        strace.Call("shim", 203.5, "mkdir", strace.DIRECTORIES_MADE),
        strace.Call("shim", 150.0, "read"),
        strace.Call("node", 210.0, "read"),  # after the last pod
    ]
    assert singles.calls(run, made) == {
        strace.DIRECTORIES_MADE: {"start": 0.5, "all": 0.5},
        strace.FILES_MADE: {"start": 0.5, "all": 0.5},
        "system calls: node": {"start": 0.5, "all": 0.5},
        "system calls: shim": {"start": 0.5, "after": 1.0, "all": 1.5},
    }


@pytest.mark.timeout(300)
async def test_what_a_pod_costs(tmp_path: Path) -> None:
    """Of each class, since none is asked for. The counts of single pods that sleep are no matter of the machine."""
    account = (await found(tmp_path, "account", "--pods", "3", "--starts", "3"))["account"]
    assert account.keys() == {"wasmlet", "wasmlet-dense"}
    for titles in account.values():
        running = titles["to Running, 3 at once"]
        assert {"node", "wasmlet-shim", "all"} <= running.keys()
        assert running["all"]["CPU, ms"] == pytest.approx(
            sum(row["CPU, ms"] for name, row in running.items() if name != "all")
        )
        assert titles["to gone, 3 at once"]["node"]["CPU, ms"] > 0
        rows = titles["by phase, 3 one after the other"]
        took = rows["time, p50, ms"]
        assert list(took) == list(singles.COLUMNS)
        assert all(value > 0 for value in took.values())
        assert rows["CPU of the node, p50, ms"]["all"] > 0
        assert rows["API request: PATCH pods/status"]["running status"] == 1
        assert rows["API request: DELETE pods"]["removal"] == 1
        assert rows["message to the shim: run"] == {"start": 1, "all": 1}
        assert rows["message to the shim: stop"] == {"end": 1, "all": 1}
        if strace.available():
            assert rows["system calls: node"]["start"] > 0
            assert rows[strace.FILES_MADE]["all"] >= 1, "its log, at least"
            assert rows[strace.FILES_REMOVED]["all"] >= 1
            calls = titles["system calls, 3 at once"]
            assert calls["all"]["node"] >= calls["write"]["node"] > 0
    assert "wasmlet-guest" in account["wasmlet"]["to Running, 3 at once"]
    assert "wasmlet-dense" in account["wasmlet-dense"]["to Running, 3 at once"]
    assert left_over(tmp_path) == []


async def test_a_handler_that_there_is_not(tmp_path: Path) -> None:
    process = await started(tmp_path, "account", "--handler", "wasmlet-wasmtime")
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"wasmtime has no handler 'wasmlet-wasmtime'; it has wasmlet, wasmlet-dense" in said
    assert left_over(tmp_path) == []


async def test_a_burst_ends_when_a_pod_cannot_run() -> None:
    """With what its status says: of pods that have Failed, and of pods that the node refuses."""
    async with open_cluster(None) as cluster:
        trap = cluster.directory / "trap.wasm"
        trap.write_bytes(wasmtime.wat2wasm('(module (func (export "_start") unreachable))'))
        load, progress = Load(5, f"file://{trap}"), Progress(io.StringIO())
        async with cluster.running_node("wasmtime", 10) as node, asyncio.timeout(60):
            with pytest.raises(BenchmarkFailed, match=r"^pod p-0000\d did not run: Failed: Error: (?s:.*)unreachable"):
                await burst(cluster, load, progress, node)
            with pytest.raises(BenchmarkFailed, match=r"did not run: Failed: RuntimeHandlerNotSupported: .*'none'"):
                await burst(cluster, Load(5, load.image, handler="none"), progress, node)
            with pytest.raises(BenchmarkFailed, match=r"did not run: Pending: InvalidImageName: .*NO:NAME"):
                await burst(cluster, Load(5, "NO:NAME:"), progress, node)
