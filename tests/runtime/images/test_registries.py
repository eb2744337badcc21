"""Pods whose image is in a registry: pulled once, compiled once, and run by those who may."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.artifacts import modules, registries
from tests.artifacts.conftest import docker_registry
from tests.artifacts.registries import PASSWORD, USER, scripted
from tests.runtime.harness import Runtime, pod_of
from wasmlet.artifacts import push
from wasmlet.artifacts.credentials import Keyring, auths_of
from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.artifacts.references import parse
from wasmlet.clock import SystemClock
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.runtime import RuntimeConfig
from wasmlet.runtime.pods.pulling import duration

__all__ = ["docker_registry"]


async def pushed(driver: Path, address: str, keyring: Keyring | None = None, tag: str = "v1") -> str:
    """Push the driver; its image."""
    module = await asyncio.to_thread(push.load, driver)
    what, reference = push.artifact(module, {}, "v0"), parse(f"{address}/team/driver:{tag}")
    config = RegistryConfig(insecure_registries=(address,))
    pusher = push.Pusher(keychain=keyring or Keyring(), config=config, clock=SystemClock())
    await pusher.push(module, what, reference)
    return str(reference)


@pytest.fixture
async def address(docker_registry: Path, tmp_path: Path) -> AsyncIterator[str]:
    async with registries.registry(docker_registry, tmp_path / "registry") as found:
        yield found


@pytest.fixture
async def private(docker_registry: Path, tmp_path: Path) -> AsyncIterator[str]:
    there = tmp_path / "private"
    async with registries.registry(docker_registry, there, **registries.basic(there)) as found:
        yield found


def node(tmp_path: Path, address: str, **config: Any) -> Runtime:
    return Runtime(WasmtimeProvider, tmp_path / "state", RuntimeConfig(insecure_registries=(address,), **config))


def told(runtime: Runtime, key: PodKey) -> list[str]:
    reasons = ("Pulling", "Pulled", "Failed", "BackOff", "ErrImageNeverPull", "FailedToRetrieveImagePullSecret")
    return [event.message for event in runtime.events if event.key == key and event.reason in reasons]


async def test_a_pod_whose_image_is_in_a_registry(address: str, driver: Path, tmp_path: Path) -> None:
    image = await pushed(driver, address)
    async with node(tmp_path, address) as runtime:
        key = await runtime.create(pod_of("print", "hello", image=image))
        assert (await runtime.ended(key)).exit_code == 0
        assert b"hello" in await runtime.output(key)
        pulling, pulled = told(runtime, key)
        assert pulling == f'Pulling image "{image}"'
        size = len(await asyncio.to_thread(driver.read_bytes))
        assert re.fullmatch(
            rf'Successfully pulled image "{image}" in \S+s \(\S+s including waiting\)\. Image size: {size} bytes\.',
            pulled,
        )
        compiled = {path: path.stat().st_mtime_ns for path in runtime.state_dir.rglob("compiled/*")}
        assert len(compiled) == 1
        await runtime.restart()
        again = await runtime.create(pod_of("print", "again", image=image, name="again", uid="u2"))
        assert (await runtime.ended(again)).exit_code == 0
        assert told(runtime, again) == [f'Container image "{image}" already present on machine']
        assert {path: path.stat().st_mtime_ns for path in runtime.state_dir.rglob("compiled/*")} == compiled


async def test_many_pods_of_one_image(address: str, driver: Path, tmp_path: Path) -> None:
    image = await pushed(driver, address)
    async with node(tmp_path, address) as runtime:
        pods = [pod_of("print", "x", image=image, name=f"p{i}", imagePullPolicy="Always") for i in range(6)]
        keys = [await runtime.create(pod) for pod in pods]
        for key in keys:
            assert (await runtime.ended(key)).exit_code == 0
        assert len(list((runtime.state_dir / "runtime" / "images" / "images").iterdir())) == 1


def secret(address: str, uid: str = "s1", password: str = PASSWORD) -> dict[str, Any]:
    config = json.dumps({"auths": {address: {"username": USER, "password": password}}}).encode()
    return {
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "pull", "uid": uid},
        "data": {".dockerconfigjson": base64.b64encode(config).decode()},
    }


def holding(one: dict[str, Any]) -> Inputs:
    return Inputs(secrets={"pull": one})


def pod_in(namespace: str, image: str, policy: str = "IfNotPresent", *secrets: str) -> Pod:
    """A pod of its own, with these pull secrets."""
    spec = {"imagePullSecrets": [{"name": name} for name in secrets]}
    name = f"{namespace}-{policy.lower()}-{len(secrets)}"
    pod = pod_of("print", "x", image=image, name=name, imagePullPolicy=policy, spec=spec)
    pod.raw["metadata"]["namespace"] = namespace  # type: ignore[index]
    return pod


async def test_whose_image(private: str, driver: Path, tmp_path: Path) -> None:
    keys = auths_of({private: {"username": USER, "password": PASSWORD}})
    image = await pushed(driver, private, keys)
    async with node(tmp_path, private) as runtime:
        mine = await runtime.create(
            pod_in("mine", image, "IfNotPresent", "pull"), Inputs(secrets={"pull": secret(private)})
        )
        assert (await runtime.ended(mine)).exit_code == 0
        theirs = await runtime.create(pod_in("theirs", image, "IfNotPresent", "pull"))
        waiting = await runtime.waiting(theirs, "ErrImagePull")
        assert f"{private} wants a user and a password for repository:team/driver:pull" in waiting.message
        assert "imagePullSecrets" in waiting.message
        assert told(runtime, theirs)[0] == (
            "Unable to retrieve some image pull secrets (pull); attempting to pull the image may not succeed."
        )
        never = await runtime.create(pod_in("theirs", image, "Never"))
        assert (await runtime.waiting(never, "ErrImageNeverPull")).message == (
            f'Container image "{image}" is present with pull policy of Never but does not have the proper credentials '
            "to access the image"
        )
        wrong = secret(private, "s2", "looking-glass")
        denied = await runtime.create(pod_in("wrong", image, "IfNotPresent", "pull"), holding(wrong))
        assert "looking-glass" not in (await runtime.waiting(denied, "ErrImagePull")).message
        same = secret(private, "s3")
        third = await runtime.create(pod_in("third", image, "Never", "pull"), holding(same))
        assert (await runtime.ended(third)).exit_code == 0
        for event in runtime.events:
            assert PASSWORD not in event.message
            assert "looking-glass" not in event.message


async def test_never_verify(private: str, driver: Path, tmp_path: Path) -> None:
    image = await pushed(driver, private, auths_of({private: {"username": USER, "password": PASSWORD}}))
    async with node(tmp_path, private, image_pull_credentials_verification_policy="NeverVerify") as runtime:
        mine = await runtime.create(
            pod_in("mine", image, "IfNotPresent", "pull"), Inputs(secrets={"pull": secret(private)})
        )
        assert (await runtime.ended(mine)).exit_code == 0
        theirs = await runtime.create(pod_in("theirs", image, "Never"))
        assert (await runtime.ended(theirs)).exit_code == 0


async def test_the_nodes_own_credentials(private: str, driver: Path, tmp_path: Path) -> None:
    image = await pushed(driver, private, auths_of({private: {"username": USER, "password": PASSWORD}}))
    file = tmp_path / "config.json"
    file.write_bytes(base64.b64decode(secret(private)["data"][".dockerconfigjson"]))
    async with node(tmp_path, private, registry_auth_file=file) as runtime:
        key = await runtime.create(pod_in("any", image))
        assert (await runtime.ended(key)).exit_code == 0
        other = await runtime.create(pod_in("other", image, "Never"))
        assert (await runtime.ended(other)).exit_code == 0


async def test_what_a_registry_gets_wrong_shows_as_a_pull_that_fails(tmp_path: Path) -> None:
    async with scripted() as server:
        modules.serve(server, modules.manifest())
        async with node(tmp_path, server.address) as runtime:
            key = await runtime.create(pod_of(image=f"{server.address}/app:v1"))
            waiting = await runtime.waiting(key, "ErrImagePull")
            assert waiting.message.startswith(f"{server.address}/app:v1: expected one WebAssembly layer")
            backing_off = await runtime.waiting(key, "ImagePullBackOff")
            assert waiting.message in backing_off.message
            there = runtime.state_dir / "runtime" / "images"
            assert [path.name for path in there.rglob("*") if path.is_file()] == ["format"]


async def test_a_container_image_says_how_it_is_started(driver: Path, tmp_path: Path) -> None:
    layer = modules.tar_of({"bin/app.wasm": await asyncio.to_thread(driver.read_bytes)})
    config = modules.image_config("/bin/app.wasm", layers=[layer], Cmd=["env", "A"], Env=["A=of the image", "B=x"])
    tar = "application/vnd.oci.image.layer.v1.tar"
    content = modules.manifest(modules.descriptor(layer, tar), config=modules.descriptor(config, modules.OCI_CONFIG))
    async with scripted() as server:
        modules.serve(server, content, config, layer)
        async with node(tmp_path, server.address) as runtime:
            image = f"{server.address}/app:v1"
            for name, pod in (
                ("of the image", pod_of(image=image, name="a")),
                ("of the pod", pod_of(image=image, name="b", env=[{"name": "A", "value": "of the pod"}])),
            ):
                key = await runtime.create(pod)
                await runtime.ended(key)
                assert name.encode() in await runtime.output(key)


async def test_images_that_no_pod_uses_go(address: str, driver: Path, tmp_path: Path) -> None:
    image = await pushed(driver, address)
    config = {"image_gc_high_threshold": 0.0, "image_gc_low_threshold": 0.0, "minimum_image_ttl": 0.0}
    async with node(tmp_path, address, **config) as runtime:
        key = await runtime.create(pod_of("sleep", "1000", image=image))
        await runtime.running(key)
        registry = runtime.provider.services.registries
        status = await runtime.running(key)
        await registry.keep({status.image_id}, set())
        assert (await registry.collect()).images == ()
        await runtime.provider.delete_pod(key, 0)
        await registry.keep(set(), set())
        assert len((await registry.collect()).images) == 1
        there = runtime.state_dir / "runtime" / "images"
        assert list((there / "images").iterdir()) == list((there / "references").iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.3449, "345ms"), (1, "1s"), (1.2345, "1.234s"), (62.5, "1m2.5s"), (3600, "1h0m0s")],
)
def test_durations_are_as_go_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
