"""Volumes that are images: pulled as a container's image is, shared by all pods, written by none, and collected."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from tests.artifacts import modules
from tests.artifacts.modules import descriptor, manifest, tar_of
from tests.artifacts.registries import Scripted, scripted
from tests.runtime.harness import Runtime, pod_of
from tests.runtime.images.test_registries import node
from wasmlet.errors import Refused
from wasmlet.model.pod import Pod, PodKey
from wasmlet.runtime.files import volume_rules

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def serve(server: Scripted, files: dict[str, bytes]) -> str:
    """Have the server serve an image with these files; the image."""
    layer = tar_of(files)
    config, packed = modules.image_config(platform="linux/amd64", layers=[layer]), gzip.compress(layer)
    content = manifest(descriptor(packed, LAYER), config=descriptor(config, modules.OCI_CONFIG))
    modules.serve(server, content, config, packed)
    return f"{server.address}/app:v1"


def mounting(
    driver: Path, image: str, *args: str, name: str = "web", policy: str = "IfNotPresent", **mount: Any
) -> Pod:
    return pod_of(
        *args,
        name=name,
        image=f"file://{driver}",
        spec={"volumes": [{"name": "v", "image": {"reference": image, "pullPolicy": policy}}]},
        volumeMounts=[{"name": "v", "mountPath": "/v", **mount}],
    )


def trees(runtime: Runtime) -> list[Path]:
    return sorted((runtime.state_dir / "runtime" / "images" / "trees").iterdir())


async def output(runtime: Runtime, pod: Pod) -> list[str]:
    key = await runtime.create(pod)
    await runtime.ended(key)
    return (await runtime.output(key)).decode().splitlines()


def events(runtime: Runtime, key: PodKey, reason: str) -> list[str]:
    return [event.message for event in runtime.events if event.key == key and event.reason == reason]


async def test_pods_share_an_image(driver: Path, tmp_path: Path) -> None:
    async with scripted() as server, node(tmp_path, server.address, allow_local_modules=True) as runtime:
        image = serve(server, {"data/words": b"words", "top": b"top"})
        first = mounting(driver, image, "ls", "/v", "cat", "/v/data/words", name="first")
        assert await output(runtime, first) == ["data top", "words"]
        told = [(one.reason, one.container_field) for one in runtime.events if "app:v1" in one.message]
        assert told == [("Pulling", ""), ("Pulled", "")]  # about the pod, not its container
        asked = len(server.asked)
        second = mounting(driver, image, "put", "/v/top", "x", "unlink", "/v/top", "cat", "/v/top", name="second")
        put, unlink, content = await output(runtime, second)
        assert put.startswith("put /v/top: ")
        assert unlink.startswith("unlink /v/top: ")
        assert content == "top"
        assert len(server.asked) == asked
        assert len(trees(runtime)) == 1
        (here,) = (await runtime.provider.node_status()).images
        assert tuple(here.names[1:]) == (image,)
        assert here.names[0].startswith(f"{server.address}/app@sha256:")
        below = mounting(driver, image, "ls", "/v", name="below", subPath="data")
        assert await output(runtime, below) == ["words"]
        one = mounting(driver, image, "cat", "/v/it", name="one", subPath="data/words")
        one.raw["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] = "/v/it"
        assert await output(runtime, one) == ["words"]
        assert await output(runtime, mounting(driver, image, "cat", "/v/top", name="always", policy="Always")) == [
            "top"
        ]
        assert len(server.asked) == asked + 1


async def test_what_pods_mount_is_not_collected(driver: Path, tmp_path: Path) -> None:
    config = {"image_gc_high_threshold": 0.0, "image_gc_low_threshold": 0.0, "minimum_image_ttl": 0.0}
    async with scripted() as server, node(tmp_path, server.address, allow_local_modules=True, **config) as runtime:
        key = await runtime.create(mounting(driver, serve(server, {"a": b"a"}), "sleep", "1000"))
        await runtime.running(key)
        for _ in range(2):
            around = runtime.provider.services
            await around.registries.keep(set(), around.storage.images())
            assert (await around.registries.collect()).images == ()
            assert len(trees(runtime)) == 1
            await runtime.restart()  # it runs on, and has what it mounts
            await runtime.running(key)
        await runtime.provider.delete_pod(key, 0)
        around = runtime.provider.services
        await around.registries.keep(set(), around.storage.images())
        assert len((await around.registries.collect()).images) == 1
        assert trees(runtime) == []


async def test_an_image_that_is_mended(driver: Path, tmp_path: Path) -> None:
    async with scripted() as server, node(tmp_path, server.address, allow_local_modules=True) as runtime:
        image = f"{server.address}/app:v1"
        key = await runtime.create(mounting(driver, image, "cat", "/v/a"))
        waiting = await runtime.waiting(key, "ErrImagePull")
        assert f"{image}: {server.address} answered 404" in waiting.message
        assert events(runtime, key, "Failed")[0].startswith(f'Failed to pull image "{image}": {image}: ')
        serve(server, {"a": b"mended"})
        await runtime.ended(key)
        assert await runtime.output(key) == b"mended"
        assert "ImagePullBackOff" in {
            getattr(change.status.container("main").state, "reason", "")  # type: ignore[union-attr]
            for change in runtime.history
            if change.status.container("main")
        }


async def test_a_reference_that_is_none(driver: Path, tmp_path: Path) -> None:
    async with node(tmp_path, "r.example", allow_local_modules=True) as runtime:
        key = await runtime.create(mounting(driver, "file:///etc", "ls", "/v"))
        assert "file:///etc" in (await runtime.waiting(key, "InvalidImageName")).message


@pytest.mark.parametrize(
    ("source", "field"),
    [({}, "reference"), ({"reference": ""}, "reference"), ({"reference": "a", "pullPolicy": "x"}, "pullPolicy")],
)
def test_what_is_refused(source: dict[str, str], field: str) -> None:
    pod = pod_of(spec={"volumes": [{"name": "v", "image": source}]})
    with pytest.raises(Refused) as caught:
        volume_rules.check(pod, host_paths=False, claims=False)
    assert caught.value.field == f"spec.volumes[0].image.{field}"
