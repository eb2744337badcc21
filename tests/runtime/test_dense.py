"""The dense class over wasmtime: guests that do their worst beside others, which go on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from tests.runtime.callers import Caller
from tests.runtime.dense import DenseProvider
from tests.runtime.harness import Runtime, pod_of
from tests.shared.descriptors import open_descriptors
from wasmlet.model.pod import PodKey
from wasmlet.runtime import RuntimeConfig


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncGenerator[Runtime, None]:
    async with Runtime(DenseProvider, tmp_path / "state") as started:
        yield started


class Beside:
    """A guest that runs beside others, and is well at the end."""

    def __init__(self, runtime: Runtime, image: str) -> None:
        self._runtime, self._image = runtime, image

    async def __aenter__(self) -> Beside:
        pod = pod_of("print", "here", "sleep", "1000", image=self._image, name="beside")
        self._key = await self._runtime.create(pod)
        self.pid = (await self._record()).pid
        return self

    async def _record(self) -> Any:
        await self._runtime.running(self._key)
        (record,) = (
            r for r in self._runtime.provider.services.client.records.values() if r.labels["pod"]["name"] == "beside"
        )
        return record

    async def __aexit__(self, *failure: object) -> None:
        if failure[0] is None:
            assert (await self._record()).pid == self.pid
            final = await self._runtime.provider.delete_pod(self._key, 30)
            assert final is not None
            state = final.containers[0].state
            assert state.exit_code == 143


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("exit", "0"), 0, ""),
        (("exit", "126"), 126, ""),
        (("exit", "255"), 255, ""),
        (("print", "x", "trap"), 134, "unreachable"),
        (("recurse",), 134, "call stack exhausted"),
        (("abort",), 134, "abort"),
    ],
)
async def test_how_a_guest_ends(runtime: Runtime, image: str, args: tuple[str, ...], code: int, says: str) -> None:
    async with Beside(runtime, image):
        key = await runtime.create(pod_of(*args, image=image))
        ended = await runtime.ended(key)
        assert (ended.exit_code, ended.signal) == (code, None)
        assert says in ended.message
        assert ended.message.encode() in await runtime.log(key)
        assert ("driver.wasm!main" in ended.message or "driver.wasm!recurse" in ended.message) == (code == 134)


@pytest.mark.parametrize("args", [("spin",), ("sleep", "100000"), ("flood", "100000000")])
@pytest.mark.parametrize("grace", [0, 30])
async def test_whatever_it_does_it_can_be_ended(
    runtime: Runtime, image: str, args: tuple[str, ...], grace: int
) -> None:
    async with Beside(runtime, image):
        key = await runtime.create(pod_of("print", "up", *args, image=image))
        await runtime.logged(key, b"up\n")
        final = await runtime.provider.delete_pod(key, grace)
        assert final is not None
        assert final.containers[0].state.exit_code == (143 if grace else 137)


async def test_memory_is_limited_for_each(runtime: Runtime, image: str) -> None:
    async with Beside(runtime, image):
        limits = {"limits": {"memory": "64Mi"}}
        key = await runtime.create(pod_of("alloc", "100", "alloc", "20", image=image, resources=limits))
        assert (await runtime.ended(key)).exit_code == 0
        assert await runtime.log(key) == b"no memory\n20 MiB\n"
        key = await runtime.create(pod_of(image=image, name="small", resources={"limits": {"memory": "1Mi"}}))
        ended = await runtime.ended(key)
        assert (ended.exit_code, ended.reason) == (128, "StartError")
        assert "exceeds memory limits" in ended.message


async def test_files_streams_and_variables_are_its_own(runtime: Runtime, image: str) -> None:
    volume = {"volumes": [{"name": "v", "emptyDir": {}}]}
    mounts = [{"name": "v", "mountPath": "/data"}]
    async with Beside(runtime, image):
        keys = []
        for number in range(3):
            args = [
                "put",
                "/data/file",
                f"text {number}",
                "ls",
                "/data",
                "env",
                "N",
                "error",
                "oops",
                "cat",
                "/data/file",
            ]
            env = [{"name": "N", "value": str(number)}]
            pod = pod_of(*args, image=image, name=f"p{number}", spec=volume, volumeMounts=mounts, env=env)
            keys.append(await runtime.create(pod))
        for number, key in enumerate(keys):
            assert (await runtime.ended(key)).exit_code == 0
            text = await runtime.log(key)
            assert text.replace(b"oops\n", b"") == f"put /data/file: ok\nfile\nN={number}\ntext {number}".encode()
            assert text.count(b"oops\n") == 1


async def test_volumes_from_everywhere(tmp_path: Path, image: str) -> None:
    """A worker opens pods' files and nothing else of the node's, so a hostPath volume is in one of its own."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("of the node")
    config = RuntimeConfig(allow_local_modules=True, allow_host_path=(str(data),))
    async with Runtime(DenseProvider, tmp_path / "state", config) as runtime, Beside(runtime, image) as beside:
        sources = {"disk": {"emptyDir": {}}, "memory": {"emptyDir": {"medium": "Memory"}}}
        for name, source in (sources | {"host": {"hostPath": {"path": str(data)}}}).items():
            args = ["put", "/v/new", name, "cat", "/v/new", "cat", "/etc/hostname", "sleep", "1000"]
            pod = pod_of(
                *args, image=image, name=name, spec={"volumes": [{"name": "v", **source}]},
                volumeMounts=[{"name": "v", "mountPath": "/v"}],
            )  # fmt: skip
            key = await runtime.create(pod)
            await runtime.logged(key, f"put /v/new: ok\n{name}{name}".encode())
        records = runtime.provider.services.client.records.values()
        pids = {record.labels["pod"]["name"]: record.pid for record in records}
        assert pids["disk"] == pids["memory"] == beside.pid != pids["host"]
    assert (data / "new").read_text() == "host"


async def test_closes_its_descriptors_and_opens_a_thousand(runtime: Runtime, tmp_path: Path, image: str) -> None:
    """Each has descriptors of its own, and gives back at its end what it had open."""
    module = tmp_path / "files.wasm"
    module.write_bytes(wasmtime.wat2wasm(FILES))
    async with Beside(runtime, image) as beside:
        spec = {"volumes": [{"name": "v", "emptyDir": {}}]}
        mounts = [{"name": "v", "mountPath": "/data"}]
        counts = []
        for name in ("first", "second"):  # with the first the worker has the module, which it keeps
            pod = pod_of(image=f"file://{module}", name=name, spec=spec, volumeMounts=mounts)
            ended = await runtime.ended(await runtime.create(pod))
            assert (ended.exit_code, ended.message) == (100, "")  # what it could not open once its mount was closed
            counts.append(open_descriptors(beside.pid))
        assert counts[1] <= counts[0]


FILES = r"""
(module
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "file")
  (func (export "_start") (local $n i32)
    (loop $files ;; in the first mount, made and opened a thousand times
      (if (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 4) (i32.const 1)
            (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 8))
        (then (call $exit (i32.const 1))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $files (i32.lt_u (local.get $n) (i32.const 1000))))
    (local.set $n (i32.const 0))
    (loop $descriptors ;; its own streams and mounts, and some of the files
      (drop (call $close (local.get $n)))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $descriptors (i32.lt_u (local.get $n) (i32.const 100))))
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 4) (i32.const 1)
          (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 8))
      (then (call $exit (i32.const 100))))))
"""


async def test_a_descriptor_is_asked_about(runtime: Runtime, tmp_path: Path, image: str) -> None:
    """poll_oneoff with a clock and descriptors answers as the engine does by itself; clocks alone sleep."""
    module = tmp_path / "poll.wasm"
    module.write_bytes(wasmtime.wat2wasm(POLL))
    async with Beside(runtime, image):
        key = await runtime.create(pod_of(image=f"file://{module}", name="poll"))
        ended = await runtime.ended(key)
        assert (ended.exit_code, ended.message) == (0, "")


POLL = r"""
(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $now (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func $is (param $is i32) (param $wanted i32) (param $code i32)
    (if (i32.ne (local.get $is) (local.get $wanted)) (then (call $exit (local.get $code)))))
  (func $subscribe (param $at i32) (param $user i64) (param $kind i32)
    (i64.store (local.get $at) (local.get $user))
    (i32.store8 (i32.add (local.get $at) (i32.const 8)) (local.get $kind)))
  (func (export "_start")
    ;; nothing to wait for; memory that is not there
    (call $is (call $poll (i32.const 0) (i32.const 512) (i32.const 0) (i32.const 8)) (i32.const 28) (i32.const 1))
    (call $is (call $poll (i32.const 65500) (i32.const 512) (i32.const 1) (i32.const 8)) (i32.const 21) (i32.const 2))
    (call $is (call $poll (i32.const 64) (i32.const -8) (i32.const 1) (i32.const 8)) (i32.const 21) (i32.const 3))
    ;; a thousand seconds, or stdout to write to: the latter, at once
    (call $subscribe (i32.const 64) (i64.const 7) (i32.const 0))
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (i64.const 1000000000000))
    (call $subscribe (i32.const 112) (i64.const 9) (i32.const 2))
    (i32.store (i32.const 128) (i32.const 1))
    (call $is (call $poll (i32.const 64) (i32.const 512) (i32.const 2) (i32.const 8)) (i32.const 0) (i32.const 4))
    (call $is (i32.load (i32.const 8)) (i32.const 1) (i32.const 5))
    (call $is (i32.wrap_i64 (i64.load (i32.const 512))) (i32.const 9) (i32.const 6))
    (call $is (i32.load8_u (i32.const 522)) (i32.const 2) (i32.const 7))
    ;; two clocks: the one that is due
    (call $subscribe (i32.const 112) (i64.const 11) (i32.const 0))
    (i32.store (i32.const 128) (i32.const 0))
    (i64.store (i32.const 136) (i64.const 1000000))
    (i32.store16 (i32.const 152) (i32.const 0))
    (call $is (call $poll (i32.const 64) (i32.const 512) (i32.const 2) (i32.const 8)) (i32.const 0) (i32.const 8))
    (call $is (i32.load (i32.const 8)) (i32.const 1) (i32.const 9))
    (call $is (i32.wrap_i64 (i64.load (i32.const 512))) (i32.const 11) (i32.const 10))
    ;; a monotonic time that has been reached: at once
    (drop (call $now (i32.const 1) (i64.const 0) (i32.const 88)))
    (i32.store16 (i32.const 104) (i32.const 1))
    (call $is (call $poll (i32.const 64) (i32.const 512) (i32.const 1) (i32.const 8)) (i32.const 0) (i32.const 11))
    (call $is (i32.wrap_i64 (i64.load (i32.const 512))) (i32.const 7) (i32.const 12))
    ;; a clock that does not exist
    (i32.store (i32.const 80) (i32.const 77))
    (call $is (call $poll (i32.const 64) (i32.const 512) (i32.const 1) (i32.const 8)) (i32.const 28) (i32.const 13))))
"""


async def test_exec_and_attach(runtime: Runtime, image: str) -> None:
    async with Beside(runtime, image):
        key = await runtime.create(pod_of("print", "up", "sleep", "1000", image=image))
        await runtime.running(key)
        caller = Caller()
        assert await runtime.provider.exec(key, "main", ["driver", "print", "two", "exit", "130"], caller) == 130
        assert bytes(caller.out) == b"two\n"


@pytest.mark.parametrize("field", ["stdin", "tty"])
async def test_input_is_refused_by_name(runtime: Runtime, image: str, field: str) -> None:
    key = await runtime.create(pod_of("sleep", "1", image=image, **{field: True}))
    waiting = await runtime.waiting(key, "CreateContainerConfigError")
    assert waiting.message.startswith(f"spec.containers[0].{field}: handler 'wasmlet-dense' cannot end a guest")


async def test_what_each_takes(runtime: Runtime, image: str) -> None:
    spins = await runtime.create(pod_of("spin", image=image, name="spins"))
    holds = await runtime.create(pod_of("alloc", "64", "print", "up", "sleep", "1000", image=image, name="holds"))
    sleeps = await runtime.create(pod_of("sleep", "1000", image=image, name="sleeps"))
    await runtime.running(spins)
    await runtime.running(sleeps)
    await runtime.logged(holds, b"up")
    found: dict[str, Any] = {}
    while found.get("spins", {}).get("cpu", {}).get("usageCoreNanoSeconds", 0) < 300_000_000:
        summary = await runtime.provider.stats()
        found = {pod["podRef"]["name"]: pod["containers"][0] for pod in summary["pods"]}
    assert found["spins"]["cpu"]["usageCoreNanoSeconds"] > 10 * found["sleeps"]["cpu"]["usageCoreNanoSeconds"]
    memory = {name: container["memory"]["workingSetBytes"] / 2**20 for name, container in found.items()}
    assert 64 < memory["holds"] < 100
    assert memory["holds"] - memory["sleeps"] > 63.9
    assert 0 < memory["sleeps"] < 30


async def test_a_worker_that_dies_restarts_its_pods(runtime: Runtime, image: str) -> None:
    keys: list[PodKey] = []
    for number in range(5):
        pod = pod_of("sleep", "1000", image=image, name=f"p{number}", restart="Always")
        keys.append(await runtime.create(pod))
    for key in keys:
        await runtime.running(key)
    (pid,) = {record.pid for record in runtime.provider.services.client.records.values()}
    os.kill(pid, 9)
    for key in keys:
        status = await runtime.main(key, lambda status: status.restart_count == 1 and status.ready is True)
        assert status.last_state is not None
        assert (status.last_state.exit_code, status.last_state.signal) == (137, 9)


async def test_guests_outlive_the_node_loop(runtime: Runtime, image: str) -> None:
    pod = pod_of("print", "up", "sleep", "1000", image=image, restart="Always")
    key = await runtime.create(pod)
    before = await runtime.running(key)
    await runtime.restart()
    await runtime.create(pod)
    after = await runtime.running(key)
    assert (after.container_id, after.restart_count) == (before.container_id, 0)
    final = await asyncio.wait_for(runtime.provider.delete_pod(key, 30), 30)
    assert final is not None
    assert final.containers[0].state.exit_code == 143
