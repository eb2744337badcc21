"""exec in a container with mounts: the instance has the same ones, and a program may be a file in one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.runtime.callers import Caller
from tests.runtime.harness import Runtime
from tests.runtime.streams.test_exec import run, started
from wasmlet.errors import InvalidInput


async def test_the_same_mounts_and_a_program_in_one(runtime: Runtime, image: str, driver: Path) -> None:
    tools = {"name": "tools", "emptyDir": {}}
    mount = {"name": "tools", "mountPath": "/tools"}
    key = await started(
        runtime, image, "put", "/tools/note", "written", "print", "up", "sleep", "1000",
        volumeMounts=[mount], spec={"volumes": [tools]},
    )  # fmt: skip
    await runtime.logged(key, b"up")
    code, caller = await run(runtime, key, "cat", "/tools/note", "put", "/tools/other", "too", "cat", "/tools/other")
    assert (code, caller.out) == (0, b"writtenput /tools/other: ok\ntoo")
    directory = runtime.state_dir / "runtime" / "pods" / key.uid / "volumes" / "kubernetes.io~empty-dir" / "tools"
    shutil.copyfile(driver, directory / "tool.wasm")
    (directory / "link.wasm").symlink_to("tool.wasm")
    (directory / "out.wasm").symlink_to(driver)
    (directory / "text.wasm").write_text("not a module")
    (directory / "directory.wasm").mkdir()
    for word in ("/tools/tool.wasm", "tools/./tool.wasm", "/tools/link.wasm"):
        caller = Caller()
        assert await runtime.provider.exec(key, "main", [word, "args", "cat", "/tools/note"], caller) == 0
        assert caller.out == f"{word}\nargs\ncat\n/tools/note\nwritten".encode()
    for word, why in (
        ("/tools/none.wasm", "No such file"),
        ("/tools/out.wasm", "cannot be run"),
        ("/tools/../tools/text.wasm", "not WebAssembly"),
        ("/tools/directory.wasm", "expected a regular file, found a directory"),
    ):
        with pytest.raises(InvalidInput, match=why) as refused:
            await runtime.provider.exec(key, "main", [word], Caller())
        assert word in str(refused.value)
    # No mount has these, so they are words for the container's own module.
    for word in ("/other/tool.wasm", "/toolsx.wasm", "/tools/note"):
        caller = Caller()
        assert await runtime.provider.exec(key, "main", [word, "print", "own"], caller) == 0
        assert caller.out == b"own\n"
