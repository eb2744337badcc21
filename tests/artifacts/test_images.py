"""Container images as builders make them: all names of the platform, labels that are wrong, and what is kept of one."""

from __future__ import annotations

import gzip
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.artifacts import modules
from tests.artifacts.modules import descriptor, manifest, module, sha, tar_of
from tests.artifacts.registries import Scripted, scripted
from wasmlet.artifacts import collection
from wasmlet.artifacts.archives import zstd
from wasmlet.artifacts.credentials import Keyring
from wasmlet.artifacts.errors import BadContent
from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.artifacts.pull import Puller, PullLimits
from wasmlet.artifacts.references import parse
from wasmlet.artifacts.store import Image, Lease, Store
from wasmlet.clock import SystemClock

WASM = module(1000)
TAR = "application/vnd.oci.image.layer.v1.tar"
DOCKER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
COMPAT = {"module.wasm.image/variant": "compat"}
HERE = "linux/" + {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "?")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Scripted]:
    async with scripted() as made:
        yield made


async def pull(server: Scripted, store: Store, tag: str = "v1") -> Lease[Image]:
    config = RegistryConfig(insecure_registries=(server.address,))
    async with Puller(store, config, SystemClock(), PullLimits(tree_bytes=10**6)) as puller:
        return (await puller.pull(parse(f"{server.address}/app:{tag}"), Keyring())).lease


def image(server: Scripted, platform: str, *layers: bytes, tag: str = "v1", **more: Any) -> bytes:
    """Serve an image whose entry point is /app.wasm; its manifest."""
    layers = layers or (tar_of({"app.wasm": WASM}),)
    config = modules.image_config("/app.wasm", platform=platform, layers=layers)
    packed = [descriptor(layer, TAR) for layer in layers]
    content = manifest(*packed, config=descriptor(config, modules.OCI_CONFIG), **more)
    modules.serve(server, content, config, *layers, tag=tag)
    return content


def listed(server: Scripted, *entries: tuple[bytes, dict[str, Any]], **more: Any) -> None:
    """Serve an index of manifests that are served already."""
    parts = [descriptor(content, modules.OCI) | extra for content, extra in entries]
    content = modules.index(*parts)
    if more:
        content = content.removesuffix(b"}") + b', "annotations": {"module.wasm.image/variant": "compat"}}'
    modules.serve(server, content, kind=modules.OCI_INDEX)


def platform(name: str) -> dict[str, Any]:
    system, _, machine = name.partition("/")
    return {"platform": {"os": system, "architecture": machine}}


PLATFORMS = [
    "wasi/wasm", "wasi/wasm32", "wasip1/wasm", "wasip1/wasm32", "wasip2/wasm", "linux/wasm", "linux/wasm32",
    "wasm/wasi", "wasm32/wasi", "js/wasm", "Wasi/Wasm",
]  # fmt: skip


@pytest.mark.parametrize("name", PLATFORMS)
async def test_every_name_of_the_platform(server: Scripted, store: Store, name: str) -> None:
    content = image(server, name)
    with await pull(server, store) as lease:
        assert lease.path.read_bytes() == WASM
    image(server, "linux/amd64", tag="other")
    listed(server, (manifest(), platform("linux/amd64")), (content, platform(name)))
    with await pull(server, store) as lease:
        assert lease.path.read_bytes() == WASM


@pytest.mark.parametrize("name", ["linux/amd64", "linux/arm64", "windows/amd64", "wasi/amd64", "linux/wasmx", "/"])
async def test_other_platforms_are_refused(server: Scripted, store: Store, name: str) -> None:
    content = image(server, name)
    with pytest.raises(BadContent, match=r"expected an image for wasi/wasm, found one for .*variant=compat"):
        await pull(server, store)
    listed(server, (content, platform(name)))
    with pytest.raises(BadContent, match=r"expected a manifest for wasi/wasm in the index; found .*variant=compat"):
        await pull(server, store)
    assert modules.left_in(store) == []


async def test_wasi_preview_1_is_chosen_before_others(server: Scripted, store: Store) -> None:
    entries = [
        (image(server, name, tar_of({"app.wasm": module(number)}), tag=name.replace("/", "-")), platform(name))
        for number, name in enumerate(["js/wasm", "wasip2/wasm", "linux/wasm", "wasi/wasm32", "wasip1/wasm"])
    ]
    listed(server, *entries)
    with await pull(server, store) as lease:
        assert lease.path.read_bytes() == module(4)


@pytest.mark.parametrize("value", ["compat", "compat-smart"])
@pytest.mark.parametrize("where", ["alone", "manifest", "descriptor", "index"])
async def test_the_annotation_that_says_it_is_webassembly(
    server: Scripted, store: Store, where: str, value: str
) -> None:
    note = {"annotations": {"module.wasm.image/variant": value}}
    content = image(server, HERE, **(note if where in ("alone", "manifest") else {}))
    other = image(server, "linux/riscv64", tag="other")
    attested = (manifest(), platform("unknown/unknown"))
    if where != "alone":
        described = (content, platform(HERE) | (note if where == "descriptor" else {}))
        listed(server, attested, (other, platform("linux/riscv64")), described, **(note if where == "index" else {}))
    with await pull(server, store) as lease:
        assert lease.path.read_bytes() == WASM


async def test_what_an_index_says_counts_where_the_configuration_says_another(server: Scripted, store: Store) -> None:
    listed(server, (image(server, "linux/amd64"), platform("wasi/wasm")))
    with await pull(server, store) as lease:
        assert lease.path.read_bytes() == WASM


KINDS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("packing", sorted(KINDS))
@pytest.mark.parametrize("label", [TAR, f"{TAR}+gzip", f"{TAR}+zstd", DOCKER_TAR, f"{DOCKER_TAR}.gzip"])
async def test_the_first_bytes_say_how_a_layer_is_packed(
    server: Scripted, store: Store, label: str, packing: str
) -> None:
    layer = tar_of({"app.wasm": WASM})
    packed, config = KINDS[packing](layer), modules.image_config("/app.wasm", layers=[layer])
    content = manifest(descriptor(packed, label), config=descriptor(config, modules.OCI_CONFIG))
    modules.serve(server, content, config, packed)
    with await pull(server, store) as lease:
        assert lease.path.read_bytes() == WASM


async def test_the_files_of_an_image_are_kept_as_long_as_its_module(server: Scripted, store: Store) -> None:
    image(server, "wasi/wasm", tar_of({"base/a": b"1", "b": b"2"}), tar_of({"app.wasm": WASM, ".wh.b": b""}))
    limits = collection.Limits(high=0, low=0, min_age=0)
    with await pull(server, store) as lease:
        assert lease.files is not None
        assert sorted(os.listdir(lease.files.path)) == ["app.wasm", "base"]
        collection.collect(store, limits, SystemClock(), lambda directory: 100.0)
        assert (lease.files.path / "base/a").read_bytes() == b"1"
        assert (lease.image.files, lease.image.folder) == (True, "/")
    with await pull(server, store) as lease:  # as the store has it
        assert lease.files is not None
        tree = lease.files.path
    collection.collect(store, limits, SystemClock(), lambda directory: 100.0)
    assert not tree.exists()
    assert store.find(parse(f"{server.address}/app:v1")) is None


async def test_an_image_whose_files_are_gone_is_not_whole(server: Scripted, store: Store) -> None:
    image(server, "wasi/wasm", tar_of({"app.wasm": WASM, "b": b"2"}))
    reference = parse(f"{server.address}/app:v1")
    with await pull(server, store) as lease:
        assert lease.files is not None
        (lease.files.path.parent / "tree.json").unlink()
    assert store.find(reference) is None
    with await pull(server, store) as lease:
        assert lease.files is not None
        assert (lease.files.path / "b").read_bytes() == b"2"
    found = store.find(reference)
    assert found is not None
    found.close()


async def test_a_module_alone_has_no_files(server: Scripted, store: Store) -> None:
    image(server, "wasi/wasm", tar_of({"app.wasm": WASM}))
    with await pull(server, store) as lease:
        assert lease.files is None
    assert list(store.trees.iterdir()) == []
    assert sha(WASM) == lease.image.module


async def test_an_image_that_a_pod_mounts_already_is_not_brought_again(server: Scripted, store: Store) -> None:
    layer = tar_of({"app.wasm": WASM, "b": b"2"})
    image(server, "wasi/wasm", layer)
    config = RegistryConfig(insecure_registries=(server.address,))
    async with Puller(store, config, SystemClock()) as puller:
        reference = parse(f"{server.address}/app:v1")
        tree = (await puller.pull_tree(reference, Keyring())).lease
        with tree, (await puller.pull(reference, Keyring())).lease as lease:
            assert lease.files is not None
            assert lease.files.path == tree.path
    assert server.paths().count(f"/v2/app/blobs/{sha(layer)}") == 1
