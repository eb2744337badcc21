"""Who dies and what goes on: the node loop, a zygote, the shim. And whose memory holds which secret."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.harness import Runtime, pod_of
from tests.shared.descriptors import open_descriptors
from tests.worker.harness import alive, children, kill, wait_gone, zygote_of
from wasmlet.errors import ConfigError, NotFound
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import PodKey
from wasmlet.model.status import Running, Terminated
from wasmlet.provider import NodeContext
from wasmlet.runtime import RuntimeConfig
from wasmlet.worker.supervisor.store import RECORDS


def pid_of(runtime: Runtime, key: PodKey) -> int:
    """The process of the pod's one container."""
    (record,) = (r for r in runtime.provider.services.client.records.values() if r.labels["pod"]["uid"] == key.uid)
    return record.pid


async def test_pods_go_on_under_another_node_loop(runtime: Runtime, image: str) -> None:
    pod = pod_of("print", "before", "sleep", "1000", image=image, restart="Always")
    short = pod_of("sleep", "1", "exit", "3", name="short", image=image)
    key, gone = await runtime.create(pod), await runtime.create(short)
    before, pid, shim = await runtime.running(key), pid_of(runtime, key), runtime.shim
    await runtime.running(gone)

    await runtime.stop()
    assert alive(pid)
    await asyncio.to_thread(wait_gone, pid_of_child(shim, pid))  # the short one ends while nobody looks
    await runtime.start()

    assert runtime.shim == shim
    listed = {record.key: record.status for record in await runtime.provider.list_pods()}
    assert set(listed) == {key, gone}
    # Whether it is ready is asked again, or known to the API, once the manifest is here.
    assert listed[key].containers == (attrs.evolve(before, ready=None, started=None, resources=None, allocated=None),)
    (ended,) = listed[gone].containers
    assert isinstance(ended.state, Terminated)
    assert (ended.state.exit_code, ended.state.reason) == (3, "Error")

    for again in (pod, short):
        await runtime.provider.create_pod(again, Inputs())
    assert (await runtime.provider.pod_status(key)).containers == (before,)
    assert pid_of(runtime, key) == pid
    assert await runtime.logged(key, b"before\n") == b"before\n"
    assert (await runtime.provider.pod_status(gone)).containers == (ended,)
    await runtime.provider.delete_pod(key, 30)
    assert not alive(pid)


def pid_of_child(shim: int, but: int) -> int:
    """The one guest beside `but`."""
    (found,) = (pid for pid, name in children(shim).items() if name == "wasmlet-guest" and pid != but)
    return found


async def test_restart_count_and_back_off_survive(timed: Runtime, image: str) -> None:
    pod = pod_of("exit", "1", image=image, restart="Always")
    key = await timed.create(pod)
    for count in (1, 2, 3):
        await timed.main(key, lambda s, n=count: s.restart_count == n and s.last_state is not None)  # type: ignore[misc]
        await timed.waiting(key, "CrashLoopBackOff")
        if count < 3:
            timed.fake_clock.advance(await timed.fake_clock.next_sleep())
    before = (await timed.provider.pod_status(key)).containers[0]

    await timed.restart()

    await timed.create(pod)
    await timed.waiting(key, "CrashLoopBackOff")
    after = (await timed.provider.pod_status(key)).containers[0]
    assert after.restart_count == before.restart_count == 3
    assert after.last_state == before.last_state
    assert "back-off 40s" in (await timed.waiting(key, "CrashLoopBackOff")).message
    timed.fake_clock.advance(await timed.fake_clock.next_sleep())
    await timed.main(key, lambda s: s.restart_count == 4)


async def test_init_containers_are_not_run_again(runtime: Runtime, image: str) -> None:
    spec = {"initContainers": [{"name": "init", "image": image, "args": ["print", "init"]}]}
    pod = pod_of("sleep", "1000", image=image, spec=spec)
    key = await runtime.create(pod)
    await runtime.running(key)
    before = await runtime.provider.pod_status(key)
    await runtime.restart()
    (listed,) = await runtime.provider.list_pods()
    assert [s.container_id for s in (*listed.status.init_containers, *listed.status.containers)] == [
        s.container_id for s in (*before.init_containers, *before.containers)
    ]
    await runtime.provider.update_pod(pod, Inputs())  # what the node loop calls for a pod that it finds running
    after = await runtime.provider.pod_status(key)
    assert (after.init_containers, after.containers) == (before.init_containers, before.containers)
    assert await runtime.log(key, "init") == b"init\n"


async def test_a_node_loop_that_is_killed(tmp_path: Path, image: str) -> None:
    """SIGKILL leaves no time for anything."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    script = """
import asyncio, sys
from pathlib import Path
from tests.runtime.harness import Runtime, pod_of
from wasmlet_wasmtime import WasmtimeProvider

async def main():
    async with Runtime(WasmtimeProvider, Path(sys.argv[1])) as runtime:
        key = await runtime.create(pod_of("print", "up", "sleep", "1000", image=sys.argv[2], restart="Always"))
        await runtime.logged(key, b"up")
        print("running", flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])}
    command = [sys.executable, "-c", script, str(state), image]
    loop = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=environment, cwd=root)
    assert loop.stdout is not None
    while (line := await loop.stdout.readline()) != b"running\n":
        assert line, "the node loop has ended"
    loop.send_signal(signal.SIGKILL)
    await loop.wait()

    async with Runtime(WasmtimeProvider, state) as runtime:
        (record,) = await runtime.provider.list_pods()
        assert isinstance(record.status.containers[0].state, Running)
        assert record.status.containers[0].restart_count == 0
        pid = pid_of(runtime, record.key)
        await runtime.create(pod_of("print", "up", "sleep", "1000", image=image, restart="Always"))
        assert pid_of(runtime, record.key) == pid
        assert await runtime.log(record.key) == b"up\n"
        await runtime.provider.delete_pod(record.key, 30)
        await asyncio.to_thread(wait_gone, pid)


async def test_a_killed_zygote(runtime: Runtime, image: str) -> None:
    first = await runtime.create(pod_of("sleep", "1000", name="first", image=image))
    before = await runtime.running(first)
    zygote = zygote_of(runtime.shim)
    await asyncio.to_thread(kill, zygote)
    second = await runtime.create(pod_of("print", "x", name="second", image=image))
    assert (await runtime.ended(second)).exit_code == 0
    assert await runtime.running(first) == before


async def test_a_killed_shim(runtime: Runtime, image: str) -> None:
    never = await runtime.create(pod_of("sleep", "1000", name="never", image=image))
    always = await runtime.create(pod_of("print", "up", "sleep", "1000", name="always", image=image, restart="Always"))
    await runtime.running(never)
    await runtime.logged(always, b"up")
    pids = [pid_of(runtime, never), pid_of(runtime, always)]
    old = runtime.shim
    await asyncio.to_thread(kill, old)
    for pid in pids:
        await asyncio.to_thread(wait_gone, pid)
    lost = await runtime.ended(never)
    assert (lost.exit_code, lost.reason) == (137, "ContainerStatusUnknown")
    assert lost.message == "The container could not be located: the shim that ran it has died"
    status = await runtime.main(always, lambda s: s.restart_count == 1 and isinstance(s.state, Running))
    assert status.last_state is not None
    assert (status.last_state.exit_code, status.last_state.reason) == (137, "ContainerStatusUnknown")
    assert await runtime.log(always, previous=True) == b"up\n"
    assert runtime.shim != old
    runtime._pids.add(runtime.shim)


async def test_shim_and_state_are_both_lost(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("sleep", "1000", image=image))
    await runtime.running(key)
    os.kill(runtime.shim, signal.SIGSTOP)  # so that it writes no more
    (runtime.state_dir / "runtime" / RECORDS).unlink()
    await asyncio.to_thread(kill, runtime.shim)
    lost = await runtime.ended(key)
    assert (lost.exit_code, lost.reason) == (137, "ContainerStatusUnknown")
    runtime._pids.add(runtime.shim)
    status = await runtime.provider.delete_pod(key, 30)
    assert status is not None
    assert status.containers[0].state == lost


async def test_a_worker_that_nobody_needs_leaves_with_the_node_loop(tmp_path: Path, image: str) -> None:
    runtime = Runtime(WasmtimeProvider, tmp_path)
    await runtime.start()
    shim = runtime.shim
    key = await runtime.create(pod_of("print", "x", image=image))
    assert (await runtime.ended(key)).exit_code == 0
    await runtime.stop()
    await asyncio.to_thread(wait_gone, shim)
    async with runtime:  # what it knew is on file
        (record,) = await runtime.provider.list_pods()
        assert record.key == key
        assert await runtime.log(key) == b"x\n"


async def test_a_start_that_fails_can_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "runtime").write_text("in the way")
    provider = WasmtimeProvider(RuntimeConfig())
    with pytest.raises(ConfigError, match="cannot use the state directory"):
        await provider.start(NodeContext("node", "127.0.0.1", 10, tmp_path))
    await provider.stop()
    (tmp_path / "runtime").unlink()
    (tmp_path / "runtime").mkdir(mode=0o755)
    provider = WasmtimeProvider(RuntimeConfig())
    with pytest.raises(ConfigError, match="chmod 0700"):
        await provider.start(NodeContext("node", "127.0.0.1", 10, tmp_path))
    await provider.stop()


def memory_has(pid: int, secret: bytes) -> bool:
    """Whether the secret is anywhere in the memory of the process."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, rights, *_ = line.split()
            begin, end = (int(number, 16) for number in span.split("-"))
            if not rights.startswith("r") or "[v" in line:
                continue
            tail = b""
            while begin < end:
                memory.seek(begin)
                try:
                    piece = memory.read(min(1 << 20, end - begin))
                except OSError:
                    break  # a guest's reserved space, with nothing behind it
                if secret in tail + piece:
                    return True
                tail, begin = piece[-len(secret) :], begin + len(piece)
    return False


def holding(paths: list[Path], secret: bytes) -> list[Path]:
    """Which of the files have the secret in them."""
    return [path for path in paths if path.is_file() and secret in path.read_bytes()]


async def test_a_secret_is_in_its_own_process_only(runtime: Runtime, image: str) -> None:
    # Put together here, so that the module of this test does not hold it in one piece either.
    secrets = {name: "".join(reversed(f"terces-{name}-yrev")) for name in ("one", "two")}
    keys = {}
    for name, secret in secrets.items():
        env = [{"name": "PASSWORD", "value": secret}]
        # Not printed: what a guest prints goes through the shim.
        keys[name] = await runtime.create(pod_of("print", "up", "sleep", "1000", name=name, image=image, env=env))
        await runtime.logged(keys[name], b"up")
    pids = {name: pid_of(runtime, key) for name, key in keys.items()}
    zygote = zygote_of(runtime.shim)
    for name, secret in secrets.items():
        everybody = (*pids.values(), zygote, runtime.shim)
        assert [pid for pid in everybody if memory_has(pid, secret.encode())] == [pids[name]]
        shown = [Path(f"/proc/{pid}/{file}") for pid in everybody for file in ("cmdline", "environ")]
        assert holding([*shown, *runtime.state_dir.rglob("*")], secret.encode()) == []


async def test_many_pods_come_and_go_while_workers_die(runtime: Runtime, image: str) -> None:
    """Whatever the order of things, nothing is left: no process, no record, no file, no descriptor."""
    rng = random.Random(1)
    works = [("print", "x"), ("sleep", "1000"), ("exit", "1"), ("trap",), ("flood", "1000"), ("spin",)]

    async def live(number: int, work: tuple[str, ...], policy: str, seconds: float, grace: float, hurry: bool) -> None:
        key = await runtime.create(pod_of(*work, name=f"pod-{number}", image=image, restart=policy))
        await asyncio.sleep(seconds)
        if hurry:
            call = asyncio.create_task(runtime.provider.delete_pod(key, 30))
            await asyncio.sleep(seconds / 50)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        with contextlib.suppress(NotFound):
            await runtime.provider.delete_pod(key, grace)

    await runtime.ended(await runtime.create(pod_of("print", "x", name="first", image=image)))
    descriptors = open_descriptors()
    for victim in ("nobody", "wasmlet-zygote", "wasmlet-shim"):
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for number in range(30):
                policy, grace = rng.choice(("Always", "Never", "OnFailure")), rng.choice((0, 1, 30))
                live_for = rng.random() * 0.3
                group.create_task(live(number, rng.choice(works), policy, live_for, grace, rng.random() < 0.5))
            await asyncio.sleep(0.1)
            if victim == "wasmlet-shim":
                os.kill(runtime.shim, signal.SIGKILL)
            for pid, name in children(runtime.shim).items():
                if name == victim:
                    os.kill(pid, signal.SIGKILL)
        runtime._pids.add(runtime.shim)
        assert [record.key.name for record in await runtime.provider.list_pods()] == ["first"]
        assert len(runtime.provider.services.client.records) == 1
        for pid, name in children(runtime.shim).items():
            if name == "wasmlet-guest":
                await asyncio.to_thread(wait_gone, pid)
        left = [path.name for path in (runtime.state_dir / "runtime" / "logs").rglob("*.log*")]
        assert left
        assert {name.partition(",")[0] for name in left} == {"uid-of-first"}
        # Fewer where what a test before this one had open has been closed meanwhile.
        assert open_descriptors() <= descriptors
    assert "an error of wasmlet's own" not in log_of_shim(runtime)


def log_of_shim(runtime: Runtime) -> str:
    return (runtime.state_dir / "runtime" / "shim.log").read_text()


async def test_nothing_is_left_of_a_test_that_fails_between_two_node_loops(tmp_path: Path, image: str) -> None:
    below: list[int] = []

    async def fails() -> None:
        async with Runtime(WasmtimeProvider, tmp_path / "state") as runtime:
            await runtime.running(await runtime.create(pod_of("sleep", "1000", image=image)))
            below.extend((runtime.shim, *children(runtime.shim)))
            await runtime.stop()
            assert alive(below[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert len(below) > 1
    assert not any(map(alive, below))
