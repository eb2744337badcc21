"""The files of a container image under wasmer: at their own paths, and read-only."""

from __future__ import annotations

from pathlib import Path

from wasmlet_wasmer import WasmerProvider

from tests.artifacts.registries import scripted
from tests.runtime.files.imaged import said, serve
from tests.runtime.harness import Runtime
from wasmlet.runtime import RuntimeConfig


async def test_files_at_their_own_paths(driver: Path, tmp_path: Path) -> None:
    async with scripted() as server:
        config = RuntimeConfig(insecure_registries=(server.address,))
        async with Runtime(WasmerProvider, tmp_path / "state", config) as runtime:
            image = serve(server, driver, {"data/a": b"a", "etc/own": b"own", "top": b"top"})
            text = "cat /data/a; cat /etc/own; cat /top; put /data/a x; put /new x; unlink /top; cat /data/a"
            spec = {"volumes": [{"name": "e", "emptyDir": {}}]}
            mounts = [{"name": "e", "mountPath": "/data/below"}]
            more = "put /data/below/x y; cat /data/below/x"
            found = await said(runtime, f"{text}; {more}", image, spec=spec, volumeMounts=mounts)
            assert found[:3] == ["a", "own", "top"]
            assert not [line for line in found[3:6] if line.endswith(": ok")]
            assert found[6:] == ["a", "put /data/below/x: ok", "y"]
            assert (await said(runtime, "cat /data/a", serve(server, driver, tag="bare"), name="bare")) == [
                "cat /data/a: No such file or directory"
            ]
