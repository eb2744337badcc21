"""One node with both engines: a pod's RuntimeClass says which runs it, and a module is compiled for each."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.harness import Runtime, pod_of
from wasmlet.model.inputs import Inputs
from wasmlet.runtime import RuntimeConfig


async def test_both_engines(wasmer: Path, image: str, tmp_path: Path) -> None:
    config = RuntimeConfig(allow_local_modules=True, engine=("wasmer",))
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as node:
        status = await node.provider.node_status()
        assert set(status.runtime_handlers) >= {"", "wasmlet", "wasmlet-wasmer"}
        running = {}
        for handler in ("", "wasmlet-wasmer"):
            pod = pod_of("print", "here", "sleep", "100000", name=f"on-{handler}", image=image)
            key = await node.create(pod, Inputs(runtime_handler=handler))
            await node.logged(key, b"here\n")
            record = node.provider._instance(key, "main")
            running[handler] = os.readlink(f"/proc/{record.pid}/exe")
            code, output = await node.provider._services.commands.run(key, "main", ["driver", "print", handler])
            assert (code, output) == (0, f"{handler}\n".encode())
        assert running["wasmlet-wasmer"] == str(await asyncio.to_thread(wasmer.resolve))
        assert running[""] != running["wasmlet-wasmer"]
        assert len(list((tmp_path / "state" / "runtime" / "images" / "compiled").iterdir())) == 2
