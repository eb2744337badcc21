"""Limits of containers with real guests: what the kernel holds of them, and what a guest sees that takes more.

Each says what comes of it where this process may make no control groups, too.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.callers import Caller
from tests.runtime.harness import PATIENCE, Runtime, pod_of
from tests.shared.machine import NOBODY, as_nobody, may_limit
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.model.quantity import Quantity
from wasmlet.runtime import RuntimeConfig, resizing

MEBIBYTE = 2**20
MEMORY, CPU = may_limit("memory"), may_limit("cpu")


def directory(runtime: Runtime, key: PodKey, controller: str, container: str = "main") -> Path:
    """The container's group."""
    client = runtime.provider.services.client
    life = runtime.provider._life(key).life(container)
    assert life is not None
    assert life.record is not None
    return Path(client.groups[controller]["directory"], life.record.group)


def number(path: Path) -> int:
    return int(path.read_text())


def fields(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.02)


def test_what_resources_come_to() -> None:
    given = {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "0.1001", "memory": "1Gi"}}
    assert resizing.as_message(given) == {"memory": 64 * MEBIBYTE, "cpu": 1500, "cpu_request": 101}
    assert resizing.as_message({}) == {"memory": None, "cpu": None, "cpu_request": None}
    assert resizing.as_message({"limits": {"cpu": "0", "memory": "0"}}) == {
        "memory": None, "cpu": None, "cpu_request": None,
    }  # fmt: skip
    assert resizing.memory_limit({"limits": {"memory": "0.5"}}) == 1


async def test_what_keeps_guests_in_is_known(runtime: Runtime) -> None:
    found = runtime.provider.services.client.confinement
    if MEMORY and CPU and may_limit("pids"):
        assert found["cgroup"] == "v1: memory, pids, cpu"
    assert found["cgroup"]


async def test_too_much_memory(runtime: Runtime, image: str) -> None:
    key = await runtime.create(
        pod_of("alloc", "4", "alloc", "80", image=image, resources={"limits": {"memory": "40Mi"}})
    )
    ended = await runtime.ended(key)
    if MEMORY:
        assert (ended.exit_code, ended.reason, ended.signal, ended.message) == (137, "OOMKilled", None, "")
        paths = [directory(runtime, key, controller) for controller in ("memory", "pids", "cpu", "cpuacct")]
        await eventually(lambda: not any(path.exists() for path in paths))
    else:
        assert ended.exit_code == 0
        assert await runtime.output(key) == b"4 MiB\nno memory\n"


async def test_the_engine_holds_the_limit_where_the_kernel_cannot(tmp_path: Path, image: str) -> None:
    config = RuntimeConfig(allow_local_modules=True, cgroups=False)
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime:
        client = runtime.provider.services.client
        assert (client.confinement["cgroup"], client.groups) == ("off: this node does not want it", {})
        limited = {"limits": {"memory": "40Mi", "cpu": "500m"}}
        key = await runtime.create(pod_of("alloc", "4", "alloc", "80", image=image, resources=limited))
        assert (await runtime.ended(key)).exit_code == 0
        assert await runtime.output(key) == b"4 MiB\nno memory\n"
        spins = await runtime.create(pod_of("spin", name="spins", image=image, resources=limited))
        await runtime.running(spins)
        stats = await runtime.provider.stats()
        (pod,) = [pod for pod in stats["pods"] if pod["podRef"]["name"] == "spins"]
        assert pod["memory"]["workingSetBytes"] > 0


async def test_cpu_is_held_to_its_limit(runtime: Runtime, image: str) -> None:
    spins = pod_of("spin", image=image, resources={"limits": {"cpu": "100m"}, "requests": {"cpu": "50m"}})
    key = await runtime.create(spins)
    await runtime.running(key)
    if not CPU:
        return
    group = directory(runtime, key, "cpu")
    assert number(group / "cpu.cfs_quota_us") == 10_000
    assert number(group / "cpu.shares") == 51
    await eventually(lambda: fields(group / "cpu.stat")["nr_throttled"] >= 3)
    # In each period it has had no more than its quota, but for what was spent while the period ended.
    counted = directory(runtime, key, "cpuacct") / "cpuacct.usage"
    before, began = fields(group / "cpu.stat")["nr_periods"], number(counted)
    await eventually(lambda: fields(group / "cpu.stat")["nr_periods"] >= before + 10)
    used = number(counted) - began
    periods = fields(group / "cpu.stat")["nr_periods"] - before + 1
    assert used < periods * 10_000_000 * 1.5


async def test_limits_change_under_a_running_guest(runtime: Runtime, image: str) -> None:
    def pod(cpu: str, memory: str) -> Pod:
        amount = {"cpu": cpu, "memory": memory}
        script = ("alloc", "20", "print", "up", "sleep", "1000")
        return pod_of(*script, image=image, restart="Always", resources={"limits": amount, "requests": amount})

    key = await runtime.create(pod("100m", "64Mi"))
    await runtime.logged(key, b"up")
    before = (await runtime.running(key)).container_id
    if not (MEMORY and CPU):
        return
    allowance = number(directory(runtime, key, "memory") / "memory.limit_in_bytes") - 64 * MEBIBYTE
    for cpu, memory in (("250m", "128Mi"), ("20m", "48Mi")):
        await runtime.provider.update_pod(pod(cpu, memory), Inputs())
        wanted = {"limits": {"cpu": cpu, "memory": memory}, "requests": {"cpu": cpu, "memory": memory}}
        status = await runtime.main(key, lambda s, wanted=wanted: s.resources == wanted)
        assert (status.container_id, status.restart_count) == (before, 0)
        limit = number(directory(runtime, key, "memory") / "memory.limit_in_bytes")
        assert limit == Quantity.parse(memory).units() + allowance
        assert number(directory(runtime, key, "cpu") / "cpu.cfs_quota_us") == Quantity.parse(cpu).value * 100_000
    # Less than it uses: that is not done, and nothing is killed for it.
    await runtime.provider.update_pod(pod("20m", "8Mi"), Inputs())
    status = await runtime.until(key, lambda s: any(c.reason == "Error" for c in s.conditions))
    (condition,) = status.conditions
    assert condition.type == "PodResizeInProgress"
    assert condition.message.startswith("container main: the limit of memory cannot become 8388608 bytes: ")
    assert status.containers[0].resources == wanted
    # Taken back, it is as if it had never been asked for.
    await runtime.provider.update_pod(pod("20m", "48Mi"), Inputs())
    status = await runtime.until(key, lambda s: s.conditions == ())
    assert status.containers[0].resources == wanted
    assert status.containers[0].container_id == before


async def test_a_container_that_waits_for_its_restart_gets_what_is_asked_now(timed: Runtime, image: str) -> None:
    def pod(memory: str) -> Pod:
        script = ("alloc", "80", "print", "up", "exit", "1")
        return pod_of(*script, image=image, restart="Always", resources={"limits": {"memory": memory}})

    key = await timed.create(pod("40Mi"))
    await timed.main(key, lambda s: s.restart_count == 1 and s.last_state is not None)
    await timed.waiting(key, "CrashLoopBackOff")
    await timed.provider.update_pod(pod("160Mi"), Inputs())
    assert (await timed.provider.pod_status(key)).conditions == ()
    timed.fake_clock.advance(10)
    await timed.main(key, lambda s: s.restart_count == 2 and s.last_state is not None)
    await timed.waiting(key, "CrashLoopBackOff")
    assert await timed.log(key) == b"80 MiB\nup\n"


async def test_what_is_executed_counts_as_its_container_s(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("sleep", "1000", image=image, resources={"limits": {"memory": "80Mi"}}))
    await runtime.running(key)

    async def working() -> int:
        summary = await runtime.provider.stats()
        return int(summary["pods"][0]["containers"][0]["memory"]["workingSetBytes"])

    small = await working()
    caller = Caller()
    running = asyncio.ensure_future(
        runtime.provider.exec(key, "main", ["driver", "alloc", "24", "print", "up", "sleep", "1000"], caller)
    )
    await caller.until(b"24 MiB\nup\n")  # malloc asks the engine for twice as much
    assert (await working() - small > 23 * MEBIBYTE) == MEMORY
    # A second such is more than the container may have; in place of it the kernel may choose the first.
    if MEMORY:
        code = await runtime.provider.exec(key, "main", ["driver", "alloc", "70"], Caller())
        assert 137 in (code, await running if running.done() else 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


UNPRIVILEGED = """
import asyncio, json, sys
from pathlib import Path
from tests.runtime.harness import Runtime, pod_of
from wasmlet_wasmtime import WasmtimeProvider

async def main(state, image):
    async with Runtime(WasmtimeProvider, Path(state)) as runtime:
        limited = {"limits": {"memory": "40Mi", "cpu": "100m"}}
        key = await runtime.create(pod_of("alloc", "4", "alloc", "80", image=image, resources=limited))
        ended = await runtime.ended(key)
        output = await runtime.output(key)
        print(json.dumps([runtime.provider.services.client.confinement, ended.exit_code, output.decode()]))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.needs_root("only root becomes another user")
async def test_a_node_without_rights_says_so_and_works(tmp_path: Path, image: str) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, NOBODY, NOBODY)
    said = await asyncio.to_thread(as_nobody, UNPRIVILEGED, str(state), image)
    confinement, code, output = json.loads(said.splitlines()[-1])
    assert confinement["cgroup"].startswith("off: ")
    assert (code, output) == (0, "4 MiB\nno memory\n")
