"""Guests that do their worst in a process each: it costs nobody else anything, and nothing of them is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import wasmtime
from wasmlet_wasmtime import WasmtimeProvider

from tests.guests import build
from tests.runtime.harness import Runtime, files_of, has_files, pod_of
from tests.runtime.images.mutate import zombies
from tests.runtime.test_dense import FILES
from tests.shared.descriptors import open_descriptors
from tests.shared.machine import may_limit
from tests.worker.harness import children
from wasmlet.runtime import RuntimeConfig

LIMIT = 32 * 2**20
LIMITED = {"limits": {"memory": "32Mi"}}
MOUNT = {"volumes": [{"name": "v", "emptyDir": {}}]}
MOUNTED = [{"name": "v", "mountPath": "/data"}]


@pytest.fixture(scope="session")
def walker(compile_guest: Callable[..., None]) -> Path:
    """The module that makes WASI's calls as its arguments say."""
    return build("walker", compile_guest)


@asynccontextmanager
async def unharmed(runtime: Runtime, image: str) -> AsyncIterator[None]:
    """What is done meanwhile leaves nothing, and another pod goes on."""
    beside = await runtime.create(pod_of("print", "here", "sleep", "1000", image=image, name="beside"))
    before, shim = await runtime.running(beside), runtime.shim
    await runtime.logged(beside, b"here\n")
    files, descriptors = files_of(runtime.state_dir), open_descriptors()
    yield
    for record in await runtime.provider.list_pods():
        if record.key != beside:
            await runtime.provider.delete_pod(record.key, 0)
    await asyncio.wait_for(runtime.provider.ping(), 30)
    assert await runtime.running(beside) == before
    assert runtime.shim == shim
    names = sorted(name for name in children(shim).values() if name not in ("wasmlet-spare", "wasmlet-zygote"))
    assert names == ["wasmlet-guest"]
    assert zombies(shim) == []
    await has_files(runtime.state_dir, files)
    for compiler in runtime.provider.services.handlers.compilers:
        await compiler.keep(())
    assert open_descriptors() <= descriptors
    assert "an error of wasmlet's own" not in (runtime.state_dir / "runtime" / "shim.log").read_text()


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("trap",), 134, "unreachable"),
        (("recurse",), 134, "call stack exhausted"),
        (("abort",), 134, "abort"),
        (("exit", "255"), 255, ""),
        (("alloc", "4000", "alloc", "4000", "exit", "9"), 9, ""),
    ],
)
async def test_ends_by_itself(runtime: Runtime, image: str, args: tuple[str, ...], code: int, says: str) -> None:
    async with unharmed(runtime, image):
        key = await runtime.create(pod_of(*args, image=image, resources=LIMITED))
        ended = await runtime.ended(key)
        assert (ended.exit_code, ended.signal) == (code, None)
        assert says in ended.message


@pytest.mark.parametrize("args", [("spin",), ("sleep", "100000"), ("flood", "100000000")])
@pytest.mark.parametrize("grace", [0, 30])
async def test_never_ends_by_itself(runtime: Runtime, image: str, args: tuple[str, ...], grace: int) -> None:
    async with unharmed(runtime, image):
        key = await runtime.create(pod_of("print", "up", *args, image=image))
        await runtime.logged(key, b"up\n")
        final = await runtime.provider.delete_pod(key, grace)
        assert final is not None
        assert final.containers[0].state.exit_code == (143 if grace else 137)


async def test_floods_both_streams(runtime: Runtime, image: str, walker: Path) -> None:
    async with unharmed(runtime, image):
        pods = [pod_of("both", "100000", image=f"file://{walker}", name=f"p{number}") for number in range(3)]
        for key in [await runtime.create(pod) for pod in pods]:
            assert (await runtime.ended(key)).exit_code == 0
            assert await runtime.log(key, tail_lines=2) == (b"x" * 63 + b"\n") * 2


GROWS = """
(module
  {parts}
  (func (export "_start") (local $n i32)
    (loop $more
      {grow}
      (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const {times}))))))
"""
MANY = 20
GROWING = {
    "memory": ("(memory 1)", """(drop (memory.grow (i32.const 16)))
        (memory.fill (i32.const 0) (i32.const 1) (i32.mul (memory.size) (i32.const 65536)))""", 40),
    "tables": ("(table 1 funcref) (func $f) (elem declare func $f)",
        "(drop (table.grow (ref.func $f) (i32.const 100000)))", 1000),
    "memories": ("(memory 1)" * MANY, "".join(f"""(drop (memory.grow {n} (i32.const 400)))
        (memory.fill {n} (i32.const 0) (i32.const 1) (i32.mul (memory.size {n}) (i32.const 65536)))"""
        for n in range(MANY)), 1),
    "objects": ("""(type $p (struct (field (ref null $p)) (field i64 i64)))
        (global $head (mut (ref null $p)) (ref.null $p))""",
        "(global.set $head (struct.new $p (global.get $head) (i64.const 1) (i64.const 1)))", 10_000_000),
}  # fmt: skip


@pytest.mark.parametrize("what", GROWING)
@pytest.mark.parametrize("cgroups", [True, False])
async def test_grows_without_end(image: str, tmp_path: Path, what: str, cgroups: bool) -> None:
    """Whatever it is that grows, what it takes stays in the order of the pod's limit.

    By the engine's limits, and by a control group where the machine has them.
    """
    killed = cgroups and may_limit("memory")
    parts, grow, times = GROWING[what]
    text = GROWS.format(parts=parts, grow=grow, times=times)
    module = tmp_path / "grows.wasm"
    module.write_bytes(wasmtime.wat2wasm(text))
    config = RuntimeConfig(allow_local_modules=True, cgroups=cgroups)
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime, unharmed(runtime, image):
        key = await runtime.create(pod_of(image=f"file://{module}", resources=LIMITED))
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, *(private(pid) for pid in guests(runtime)), 0)
                await asyncio.sleep(0.005)

        watching = asyncio.create_task(watch())
        ended = await runtime.ended(key)
        watching.cancel()
        if killed:
            assert (ended.exit_code, ended.reason) == (137, "OOMKilled")
        elif what == "objects":
            assert (ended.exit_code, "out of memory" in ended.message) == (134, True)
        elif what == "memories":
            assert (ended.exit_code, ended.reason) == (128, "StartError")
            assert "memory count too high" in ended.message
        else:
            assert ended.exit_code == 0
        assert most < 3 * LIMIT + 16 * 2**20


def guests(runtime: Runtime) -> list[int]:
    return [pid for pid, name in children(runtime.shim).items() if name == "wasmlet-guest"]


def private(pid: int) -> int:
    """Bytes of a process's own memory."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    lines = [line.split() for line in text.splitlines() if line.startswith(("Private_Dirty", "Private_Clean"))]
    return sum(int(line[1]) for line in lines) * 1024


async def test_closes_its_descriptors_and_opens_a_thousand(runtime: Runtime, image: str, tmp_path: Path) -> None:
    module = tmp_path / "files.wasm"
    module.write_bytes(wasmtime.wat2wasm(FILES))
    async with unharmed(runtime, image):
        pod = pod_of(image=f"file://{module}", spec=MOUNT, volumeMounts=MOUNTED)
        ended = await runtime.ended(await runtime.create(pod))
        assert (ended.exit_code, ended.message) == (100, "")


NAMED = (
    "read {}/file", "write {}/file", "append {}/file", "write {}/new", "list {}/", "stat {}/file", "times {}/file",
    "mkdir {}/made", "rmdir {}/directory", "unlink {}/file", "readlink {}/link", "symlink own {}/symlink",
    "link {}/file stolen", "link own {}/linked", "rename {}/file stolen", "rename own {}/renamed",
)  # fmt: skip
"""Calls of the walker that would reach outside by these ways to there."""
LINKED = ("read link", "append link", "stat link", "times link")


async def test_walks_out_of_its_mounts(tmp_path: Path, image: str, walker: Path) -> None:
    """Every call that takes a path, by `..`, by absolute paths, and by links that somebody has left in the mount.

    As root, so that nothing but the engine is in its way.
    """
    outside, data = tmp_path / "outside", tmp_path / "data"
    (outside / "directory").mkdir(parents=True)
    (outside / "file").write_text("secret")
    (outside / "link").symlink_to("file")
    data.mkdir()
    (data / "own").write_text("own")
    up = "../" * 12 + str(outside).lstrip("/")
    links = {"absolute": outside, "relative": up, "link": outside / "file", "root": "/", "self": "/proc/self/root"}
    for name, target in links.items():
        (data / name).symlink_to(target)
    before = snapshot(outside)
    ways = (str(outside), up, "absolute", "relative", f"root{outside}", f"self{outside}", f"absolute/../{up}")
    calls = [call.format(way) for way in ways for call in NAMED] + list(LINKED)
    words = [word for call in calls for word in (call.split()[0], "3", *call.split()[1:])]
    config = RuntimeConfig(allow_local_modules=True, allow_host_path=(str(data),), pod_users="none")
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime, unharmed(runtime, image):
        spec = {"volumes": [{"name": "v", "hostPath": {"path": str(data)}}]}
        pod = pod_of("read", "3", "own", *words, image=f"file://{walker}", spec=spec, volumeMounts=MOUNTED)
        key = await runtime.create(pod)
        assert (await runtime.ended(key)).exit_code == 0
        own, *told = (await runtime.log(key)).decode().splitlines()
    assert own == "ownread own: 0"  # so the mount is there
    assert len(told) == len(calls)
    assert [line for line in told if line.endswith(": 0")] == []
    assert snapshot(outside) == before
    assert {path.name for path in data.iterdir()} == {"own", *links}


def snapshot(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(directory.rglob("*"))
    }
