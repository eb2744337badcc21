"""Images whose blobs somebody brings: in pieces, held to their digests, and to nothing that was said of them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.artifacts import modules
from tests.artifacts.modules import OCI_CONFIG, descriptor, manifest, sha
from wasmlet.artifacts.collection import Limits, collect
from wasmlet.artifacts.errors import ArtifactError, BadContent
from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.artifacts.pull import Puller
from wasmlet.artifacts.references import parse
from wasmlet.artifacts.store import Store
from wasmlet.clock import SystemClock
from wasmlet.errors import InvalidInput
from wasmlet.model.inputs import HandedImage
from wasmlet.runtime.images import handed
from wasmlet.runtime.images.handed import Handed

NAME = "registry.example/app:v1"
TAR = "application/vnd.oci.image.layer.v1.tar"
MOST = 100_000
CLOCK = SystemClock()


@pytest.fixture
def taking(store: Store) -> Handed:
    return Handed(store, Puller(store, RegistryConfig(), CLOCK), MOST)


async def bring(taking: Handed, data: bytes, piece: int = 1000) -> int:
    """Bring a blob in pieces; how many bytes of it are there."""
    here = await taking.take(sha(data), len(data), 0, data[:piece])
    while here < len(data):
        here = await taking.take(sha(data), len(data), here, data[here : here + piece])
    return here


async def have(taking: Handed, content: bytes, *, wasm: bool = False, files: bool = False) -> tuple[str, ...]:
    return tuple(await taking.have(NAME, HandedImage(sha(content), wasm), files=files))


async def test_a_module_is_there_once_its_blobs_are(taking: Handed, store: Store) -> None:
    module = modules.module(5000)
    content = manifest(descriptor(module, "application/wasm"))
    assert await have(taking, content) == (sha(content),)
    await bring(taking, content)
    assert await have(taking, content) == (sha(module),)
    await bring(taking, module)
    assert await have(taking, content) == ()
    assert await have(taking, content) == ()
    lease = store.find(parse(NAME))
    assert lease is not None
    with lease:
        assert lease.path.read_bytes() == module
        assert lease.image.digest == sha(content)


async def test_a_container_image_is_unpacked_as_if_it_was_pulled(taking: Handed, store: Store) -> None:
    module = modules.module(100)
    layer = modules.tar_of({"app.wasm": module, "data/text": b"text"})
    config = modules.image_config("/app.wasm", "-v", layers=[layer], platform="linux/amd64")
    content = manifest(descriptor(layer, TAR), config=descriptor(config, OCI_CONFIG))
    for blob in (content, config, layer):
        await bring(taking, blob, piece=MOST)
    with pytest.raises(BadContent, match="expected an image for wasi/wasm"):
        await have(taking, content)
    for blob in (content, config, layer):
        await bring(taking, blob, piece=MOST)
    assert await have(taking, content, wasm=True) == ()
    lease = store.lease(sha(content))
    assert lease is not None
    with lease:
        assert lease.path.read_bytes() == module
        assert lease.image.command == ("/app.wasm", "-v")
        assert lease.files is not None
        assert (lease.files.path / "data" / "text").read_bytes() == b"text"


async def test_an_image_that_is_mounted_has_its_files(taking: Handed, store: Store) -> None:
    layer = descriptor(b"page", "text/html", annotations={"org.opencontainers.image.title": "index.html"})
    content = manifest(layer)
    await bring(taking, content)
    assert await have(taking, content, files=True) == (sha(b"page"),)
    await bring(taking, b"page")
    assert await have(taking, content, files=True) == ()
    tree = store.lease_tree(sha(content))
    assert tree is not None
    with tree:
        assert (tree.path / "index.html").read_bytes() == b"page"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20))
def test_pieces_in_any_order_and_twice_make_the_blob_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, int]]
) -> None:
    """Whatever came before, who goes on from what is here brings it to its end."""
    data = b"twelve bytes"
    store = Store(tmp_path_factory.mktemp("s") / "store", CLOCK)
    store.prepare()
    taking = Handed(store, Puller(store, RegistryConfig(), CLOCK), MOST)

    async def bring_them() -> None:
        here = 0
        for start, end in pieces:
            before = here
            here = await taking.take(sha(data), len(data), start, data[start:end])
            assert here == (max(before, end) if start == before else before)
        assert await bring(taking, data, piece=5) == len(data)

    asyncio.run(bring_them())
    assert store.blob(sha(data)).read_bytes() == data
    assert not list(store.ingest.iterdir())


async def test_what_is_not_what_its_digest_says_is_dropped(taking: Handed, store: Store) -> None:
    with pytest.raises(BadContent, match="another digest"):
        await taking.take(sha(b"this"), 4, 0, b"that")
    assert not modules.left_in(store)
    assert await bring(taking, b"this") == 4


async def test_what_cannot_be_is_refused(taking: Handed, store: Store) -> None:
    with pytest.raises(InvalidInput, match="100001 bytes, more than the 100000 allowed"):
        await taking.take(sha(b""), MOST + 1, 0, b"")
    with pytest.raises(InvalidInput, match="expected a digest"):
        await taking.take("../../etc/passwd", 1, 0, b"x")
    assert await taking.take(sha(b"abcd"), 4, 0, b"ab") == 2
    with pytest.raises(InvalidInput, match="was said to have 4 bytes, and now 5"):
        await taking.take(sha(b"abcd"), 5, 2, b"cd")
    assert await taking.take(sha(b"abcd"), 4, 0, b"ab") == 2
    with pytest.raises(InvalidInput, match="longer than the 4 bytes"):
        await taking.take(sha(b"abcd"), 4, 2, b"cde")
    assert not modules.left_in(store)


async def test_an_index_is_no_image_and_neither_is_rubbish(taking: Handed) -> None:
    for content, why in ((modules.index(), "found an index"), (b"rubbish", "expected a manifest")):
        await bring(taking, content)
        with pytest.raises(ArtifactError, match=why):
            await have(taking, content)


async def test_of_many_blobs_the_one_that_nobody_goes_on_with_is_dropped(taking: Handed, store: Store) -> None:
    blobs = [bytes([number]) * 10 for number in range(handed.MOST_PARTS + 1)]
    for blob in blobs:
        assert await taking.take(sha(blob), 10, 0, blob[:5]) == 5
    assert len(list(store.ingest.iterdir())) == handed.MOST_PARTS
    assert await taking.take(sha(blobs[0]), 10, 5, blobs[0][5:]) == 0
    assert await taking.take(sha(blobs[-1]), 10, 5, blobs[-1][5:]) == 10
    taking.close()
    assert not list(store.ingest.iterdir())


async def test_blobs_that_have_come_stay_while_the_rest_is_on_its_way(taking: Handed, store: Store) -> None:
    """However long that takes, and though nobody names them yet."""
    config, rest = modules.image_config("/app.wasm"), b"x" * 10

    def an_hour_passes(path: Path) -> None:
        os.utime(path, (0, 0))
        collect(store, Limits(), CLOCK, usage=lambda _: 0.0)

    await bring(taking, config)
    path = store.blob(sha(config))
    os.utime(path, (0, 0))
    await taking.take(sha(rest), 10, 0, rest[:5])
    collect(store, Limits(), CLOCK, usage=lambda _: 0.0)
    assert path.exists()
    await asyncio.to_thread(an_hour_passes, path)
    assert not path.exists()
    assert await bring(taking, config) == len(config)
