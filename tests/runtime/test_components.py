"""Components (WASI preview 2 commands) under wasmtime: what they are given, how they end, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime
from wasmlet_wasmtime import WasmtimeEngine

from tests.guests import SOURCES
from tests.runtime.callers import Caller
from tests.runtime.harness import Runtime, pod_of
from wasmlet.model.inputs import Inputs
from wasmlet.runtime import DENSE, PROCESS

SOURCE = (SOURCES / "component.wat").read_text()
IMPORT = """(component
  (import "wasi:sockets/instance-network@0.2.0" (instance
    (export "network" (type $network (sub resource)))
    (export "instance-network" (func (result (own $network))))))
"""


@pytest.fixture(params=["wasmtime's world", "our world"])
def image(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The component that does what its arguments say, as an image; its source lists them.

    It needs our world as soon as it imports something of sockets.
    """
    text = SOURCE.replace("(component\n", IMPORT, 1) if request.param == "our world" else SOURCE
    return made(tmp_path / "component.wasm", text)


def made(path: Path, text: str) -> str:
    path.write_bytes(wasmtime.wat2wasm(text))
    return f"file://{path}"


def test_what_the_engine_says_of_itself() -> None:
    assert PROCESS in WasmtimeEngine.components
    assert DENSE not in WasmtimeEngine.components


async def test_arguments_variables_and_streams(runtime: Runtime, image: str) -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "zwei"}]
    key = await runtime.create(pod_of("args", "environ", "print", "grüße", "copy", image=image, env=env))
    assert (await runtime.ended(key)).exit_code == 0
    words = ["component.wasm", "args", "environ", "print", "grüße", "copy", "HOSTNAME=web", "A=1", "B=zwei", "grüße"]
    assert (await runtime.log(key)).decode().splitlines() == words
    other = await runtime.create(pod_of("error", "oops", image=image, name="other"))
    assert (await runtime.ended(other)).exit_code == 0
    (path,) = (runtime.state_dir / "runtime" / "logs").rglob(f"{other.uid},*.log")
    assert path.read_text().split(" ", 1)[1] == "stderr F oops\n"


async def test_output_that_is_not_flushed_and_much_of_it(runtime: Runtime, image: str) -> None:
    for number, last in enumerate((["exit", "3"], ["return"], ["trap"], [])):
        pod = pod_of("flood", "500", "part", "the end", *last, image=image, name=f"p{number}")
        key = await runtime.create(pod)
        assert (await runtime.ended(key)).exit_code == {"exit": 3, "return": 1, "trap": 134}.get("".join(last[:1]), 0)
        text = await runtime.log(key)
        said, trap = text[: 500 * 4096 + len("the end")], text[500 * 4096 + len("the end") :]
        assert said.endswith(b"the end")
        assert (b"wasm trap" in trap) if last == ["trap"] else (trap == b"")


@pytest.mark.parametrize(
    ("args", "code"),
    [((), 0), (("exit", "0"), 0), (("exit", "7"), 7), (("exit", "126"), 126), (("exit", "255"), 255), (("fail",), 1),
     (("return",), 1)],
)  # fmt: skip
async def test_exit_codes(runtime: Runtime, image: str, args: tuple[str, ...], code: int) -> None:
    ended = await runtime.ended(await runtime.create(pod_of(*args, image=image)))
    assert (ended.exit_code, ended.reason) == (code, "Error" if code else "Completed")
    assert (ended.message, ended.signal) == ("", None)


@pytest.mark.parametrize(("word", "says"), [("trap", "unreachable"), ("recurse", "call stack exhausted")])
async def test_traps(runtime: Runtime, image: str, word: str, says: str) -> None:
    ended = await runtime.ended(await runtime.create(pod_of("print", "x", word, image=image)))
    assert (ended.exit_code, ended.reason, ended.signal) == (134, "Error", None)
    assert says in ended.message
    assert f"main!{word}" in ended.message


@pytest.mark.parametrize("args", [("sleep", "100000"), ("spin",), ("flood", "100000000")])
@pytest.mark.parametrize("grace", [0, 30])
async def test_whatever_it_does_it_can_be_ended(
    runtime: Runtime, image: str, args: tuple[str, ...], grace: int
) -> None:
    key = await runtime.create(pod_of("print", "up", *args, image=image))
    await runtime.logged(key, b"up\n")
    final = await runtime.provider.delete_pod(key, grace)
    assert final is not None
    assert final.containers[0].state.exit_code == (143 if grace else 137)


async def test_mounts(runtime: Runtime, image: str) -> None:
    spec = {
        "volumes": [{"name": "v", "emptyDir": {}}],
        "initContainers": [
            {"name": "init", "image": image, "args": ["put", "file", "text"],
             "volumeMounts": [{"name": "v", "mountPath": "/data"}]}
        ],
    }  # fmt: skip
    mounts = [{"name": "v", "mountPath": "/data", "readOnly": True}]
    args = ["cat", "file", "put", "file", "other", "cat", "../file", "cat", "/etc/passwd", "cat", "none", "cat", "file"]
    key = await runtime.create(pod_of(*args, image=image, spec=spec, volumeMounts=mounts))
    assert (await runtime.ended(key)).exit_code == 0
    not_permitted, no_entry = 31, 20  # as the error codes of wasi:filesystem are numbered
    told = f"texterror {not_permitted}\nerror {not_permitted}\nerror {not_permitted}\nerror {no_entry}\ntext"
    assert (await runtime.log(key)).decode() == told


async def test_a_limit_of_memory_that_the_engine_holds(ungrouped: Runtime, image: str) -> None:
    limits = {"limits": {"memory": "1Mi"}}
    args = ("grow", "2", "print", "more", "grow", "20", "print", "still here")
    key = await ungrouped.create(pod_of(*args, image=image, resources=limits))
    assert (await ungrouped.ended(key)).exit_code == 0
    assert await ungrouped.log(key) == b"more\nno memory\nstill here\n"
    less = {"limits": {"memory": "128Ki"}}
    ended = await ungrouped.ended(await ungrouped.create(pod_of(image=image, name="less", resources=less)))
    assert (ended.exit_code, ended.reason) == (128, "StartError")
    assert "exceeds memory limits" in ended.message


async def test_input_exec_and_a_terminal(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("print", "up", "copy", "print", "over", image=image, stdin=True, stdinOnce=True))
    await runtime.logged(key, b"up\n")
    caller = Caller(stdin=True)
    caller.type(b"typed")
    caller.close()
    code = await runtime.provider.exec(key, "main", ["component", "copy", "exit", "130"], caller)
    assert (code, caller.out) == (130, b"typed")
    caller = Caller(stdin=True)
    caller.type(b"this is it\n")
    caller.close()
    await runtime.provider.attach(key, "main", caller)
    assert (await runtime.ended(key)).exit_code == 0
    assert await runtime.log(key) == b"up\nthis is it\nover\n"


async def test_they_outlive_the_node_loop(runtime: Runtime, image: str) -> None:
    pod = pod_of("print", "up", "sleep", "1000", image=image, restart="Always")
    key = await runtime.create(pod)
    before = await runtime.running(key)
    await runtime.restart()
    await runtime.create(pod)
    after = await runtime.running(key)
    assert (after.container_id, after.restart_count) == (before.container_id, 0)


async def test_a_compiled_component_that_is_damaged(runtime: Runtime, image: str) -> None:
    """It is compiled again."""
    key = await runtime.create(pod_of("exit", "0", image=image, name="first"))
    assert (await runtime.ended(key)).exit_code == 0
    (compiled,) = (path for path in runtime.state_dir.rglob("*") if path.is_file() and is_elf(path))
    content = compiled.read_bytes()
    os_mode = compiled.stat().st_mode
    compiled.chmod(0o600)
    compiled.write_bytes(content[: len(content) // 2])
    compiled.chmod(os_mode)
    again = await runtime.create(pod_of("exit", "5", image=image, name="again", restart="OnFailure"))
    await runtime.main(again, lambda s: s.last_state is not None and s.last_state.exit_code == 5)


def is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


STORE = '(component (import "wasi:keyvalue/store@0.2.0" (instance (export "bucket" (type (sub resource))))) %s)'
RUN = """
  (core module $m (func (export "run") (result i32) (i32.const 0)))
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance (export "wasi:cli/run@0.2.0") (export "run" (func $run)))
"""
TRAPS_AT_ONCE = f"""
(component {RUN} (core module $s (func $before unreachable) (start $before)) (core instance $x (instantiate $s)))
"""
SPINS_AT_ONCE = TRAPS_AT_ONCE.replace("unreachable", "(loop $ever (br $ever))")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("(component)", "found a library that exports nothing"),
        (f"(component {RUN.replace('cli/run', 'cli/walk')})", "found a library that exports wasi:cli/walk@0.2.0"),
        (f"(component {RUN.replace('0.2.0', '0.3.0')})", "found a library that exports wasi:cli/run@0.3.0"),
        (STORE % RUN, "wasi:keyvalue/store@0.2.0"),
        (f'(component (import "own:plugin/api@1.0.0" (instance (export "f" (func)))) {RUN})', "own:plugin/api@1.0.0"),
    ],
)
async def test_what_cannot_run_is_refused(runtime: Runtime, tmp_path: Path, text: str, says: str) -> None:
    image = made(tmp_path / "x.wasm", text)
    waiting = await runtime.waiting(await runtime.create(pod_of(image=image)), "CreateContainerError")
    assert says in waiting.message
    assert "expected" in waiting.message
    assert "Traceback" not in waiting.message


async def test_what_runs_before_run(runtime: Runtime, tmp_path: Path) -> None:
    """Nothing of a component runs while it is compiled; a trap before `run` is one like any other."""
    image = made(tmp_path / "traps.wasm", TRAPS_AT_ONCE)
    ended = await runtime.ended(await runtime.create(pod_of(image=image)))
    assert (ended.exit_code, ended.reason) == (134, "Error")
    assert "before" in ended.message
    key = await runtime.create(pod_of(image=made(tmp_path / "spins.wasm", SPINS_AT_ONCE), name="spins"))
    await runtime.event(key, "Created")
    final = await runtime.provider.delete_pod(key, 0)
    assert final is not None
    assert final.containers[0].state.exit_code == 137


@pytest.mark.parametrize("version", ["0.2.1", "0.2.6", "0.2.99"])
async def test_newer_versions_of_preview_2(runtime: Runtime, tmp_path: Path, version: str) -> None:
    image = made(tmp_path / "newer.wasm", (SOURCES / "component.wat").read_text().replace("@0.2.0", f"@{version}"))
    key = await runtime.create(pod_of("print", "x", "exit", "9", image=image))
    assert (await runtime.ended(key)).exit_code == 9


async def test_the_dense_class_has_no_components(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of(image=image), Inputs(runtime_handler="wasmlet-dense"))
    waiting = await runtime.waiting(key, "CreateContainerError")
    assert waiting.message == (
        f"module {image} is a WebAssembly component, which wasmtime does not run in pods of handler wasmlet-dense; "
        "expected a module built for WASI preview 1 (target wasm32-wasip1), or a pod of handler wasmlet"
    )
