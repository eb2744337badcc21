"""From `wasmlet push` to `kubectl apply`: a private registry, a pull secret, a pod, and a node that starts again."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from pathlib import Path

from tests.artifacts import registries
from tests.artifacts.conftest import docker_registry
from tests.artifacts.registries import PASSWORD, USER
from tests.whole.test_end_to_end import Kube, kube, node_of
from wasmlet.testing import ControlPlane

__all__ = ["docker_registry", "kube"]
HELLO = Path(__file__).parents[2] / "examples" / "hello" / "hello.wasm"


async def test_a_private_registry(
    control_plane: ControlPlane,
    kube: Kube,
    docker_registry: Path,
    tmp_path: Path,
) -> None:
    there = tmp_path / "registry"
    async with registries.registry(docker_registry, there, **registries.basic(there)) as address:
        image, secret = f"{address}/team/hello:v1", {"imagePullSecrets": [{"name": "pull"}]}
        docker = tmp_path / "docker"
        await kube.run(
            "create", "secret", "docker-registry", "pull", f"--docker-server={address}",
            f"--docker-username={USER}", f"--docker-password={PASSWORD}",
        )  # fmt: skip
        await asyncio.to_thread(docker.mkdir)
        config = base64.b64decode(await kube.run("get", "secret", "pull", "-o", r"jsonpath={.data.\.dockerconfigjson}"))
        await asyncio.to_thread((docker / "config.json").write_bytes, config)
        push = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from wasmlet.cli import main; main()", "push", "--insecure", HELLO, image,
            env=os.environ | {"DOCKER_CONFIG": str(docker)},
        )  # fmt: skip
        assert await push.wait() == 0
        async with node_of(control_plane, tmp_path, insecure_registries=(address,)):
            await kube.apply("first", image, **secret)
            await kube.wait("first", ".status.phase", "Succeeded")
            assert "Successfully pulled image" in await kube.run("get", "events")
            await kube.apply("without", image)
            state = ".status.containerStatuses[0].state.waiting.reason"
            await kube.wait("without", state, "ImagePullBackOff")
        compiled = await asyncio.to_thread(_compiled, tmp_path)
        assert len(compiled) == 1
        async with node_of(control_plane, tmp_path, insecure_registries=(address,)):
            await kube.apply("second", image, **secret)
            await kube.wait("second", ".status.phase", "Succeeded")
            assert "Hello" in await kube.run("logs", "second")
        assert await asyncio.to_thread(_compiled, tmp_path) == compiled


def _compiled(directory: Path) -> dict[Path, int]:
    """Each compiled module, and when it was made."""
    return {path: path.stat().st_mtime_ns for path in directory.rglob("compiled/*")}
