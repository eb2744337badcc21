"""What a registry must not get away with: each is an error that names reference and cause, and leaves nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import tarfile
import zlib
from collections.abc import AsyncIterator, Callable

import pytest

from tests.artifacts import modules
from tests.artifacts.modules import descriptor, manifest, module, serve, sha, tar, tar_of
from tests.artifacts.registries import Request, Scripted, reply, scripted
from wasmlet.artifacts.archives import zstd
from wasmlet.artifacts.credentials import Keyring
from wasmlet.artifacts.errors import ArtifactError, BadContent, StoreError, Unavailable
from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.artifacts.pull import Puller, PullLimits
from wasmlet.artifacts.references import parse
from wasmlet.artifacts.store import Store
from wasmlet.testing import FakeClock

WASM = module(1000)
LAYER = descriptor(WASM, "application/wasm")
LIMITS = PullLimits(module_bytes=1_000_000, tree_bytes=4_000_000, seconds=60)


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with scripted() as made:
        yield made


async def pull(server: Scripted, store: Store, limits: PullLimits = LIMITS, tag: str = "v1") -> bytes:
    """Pull, with a clock on which pauses take no time."""
    clock = FakeClock()

    async def hurry() -> None:
        while True:
            clock.advance(await clock.next_sleep())

    hurrying = asyncio.create_task(hurry())
    try:
        config = RegistryConfig(insecure_registries=(server.address,))
        async with Puller(store, config, clock, limits) as puller:
            with (await puller.pull(parse(f"{server.address}/app:{tag}"), Keyring())).lease as lease:
                return lease.path.read_bytes()
    finally:
        hurrying.cancel()
        await asyncio.wait([hurrying])


async def fails(server: Scripted, store: Store, why: str, kind: type[ArtifactError] = BadContent) -> None:
    with pytest.raises(kind, match=why) as error:
        await pull(server, store)
    assert str(error.value).startswith(f"{server.address}/app:v1: ")
    assert modules.left_in(store) == []


async def test_good_input(server: Scripted, store: Store) -> None:
    serve(server, manifest(LAYER), WASM)
    assert await pull(server, store) == WASM


async def test_a_wrong_digest(server: Scripted, store: Store) -> None:
    serve(server, manifest(LAYER), WASM)
    server.answers[f"/v2/app/blobs/{sha(WASM)}"] = reply(WASM[:-1] + b"x")
    await fails(server, store, f"another digest: expected {sha(WASM)}")


async def test_a_wrong_digest_of_the_manifest(server: Scripted, store: Store) -> None:
    serve(server, manifest(LAYER), WASM)
    promised = "sha256:" + "0" * 64
    server.answers["/v2/app/manifests/v1"] = reply(
        manifest(LAYER), Content_Type=modules.OCI, Docker_Content_Digest=promised
    )
    await fails(server, store, f"another digest: expected {promised}")


async def test_a_truncated_body(server: Scripted, store: Store) -> None:
    serve(server, manifest(LAYER), WASM)
    server.answers[f"/v2/app/blobs/{sha(WASM)}"] = reply(WASM[:500], length=len(WASM))
    await fails(server, store, "127.0.0.1|sent another part", Unavailable)


async def test_a_body_that_ends_early_without_saying(server: Scripted, store: Store) -> None:
    serve(server, manifest(LAYER), WASM)
    server.answers[f"/v2/app/blobs/{sha(WASM)}"] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + WASM[:500]
    await fails(server, store, "ended after 500 of|sent another part", Unavailable)


async def test_a_body_longer_than_stated(server: Scripted, store: Store) -> None:
    serve(server, manifest(LAYER), WASM)
    server.answers[f"/v2/app/blobs/{sha(WASM)}"] = reply(WASM + b"more")
    await fails(server, store, f"has {len(WASM) + 4} bytes at .* its descriptor says {len(WASM)}")
    server.answers[f"/v2/app/blobs/{sha(WASM)}"] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + WASM + b"more"
    await fails(server, store, "is longer at")


async def test_a_redirect_loop(server: Scripted, store: Store) -> None:
    serve(server, manifest(LAYER), WASM)
    server.answers["/v2/app/manifests/v1"] = reply(b"", status=307, Location="/v2/app/manifests/v1")
    await fails(server, store, "redirects without end")
    server.answers["/v2/app/manifests/v1"] = reply(b"", status=302, Location="ftp://elsewhere/x")
    await fails(server, store, "no address of HTTP")


async def test_an_html_page(server: Scripted, store: Store) -> None:
    server.answers["/v2/app/manifests/v1"] = reply(b"<html>Log in</html>", Content_Type="text/html; charset=utf-8")
    await fails(server, store, "expected a manifest, found text/html: is that a registry")
    serve(server, manifest(LAYER), WASM)
    page = b"<html>Log in</html>".ljust(len(WASM))
    server.answers[f"/v2/app/blobs/{sha(WASM)}"] = reply(page, Content_Type="text/html")
    await fails(server, store, "another digest")


async def test_a_manifest_of_100_mb(server: Scripted, store: Store) -> None:
    size = 100 * 1024 * 1024
    server.answers["/v2/app/manifests/v1"] = reply(b"{", length=size)
    await fails(server, store, f"answered with {size} bytes, more than the 4194304 allowed")
    server.answers["/v2/app/manifests/v1"] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b" " * 5_000_000
    await fails(server, store, "more than the 4194304 bytes allowed")


async def test_an_index_that_refers_to_itself(server: Scripted, store: Store) -> None:
    # No content can hold its own digest, so what claims to has another.
    child = descriptor(b"", modules.OCI_INDEX)
    listing = modules.index(child)
    serve(server, listing, kind=modules.OCI_INDEX)
    server.answers[f"/v2/app/manifests/{child['digest']}"] = reply(listing, Content_Type=modules.OCI_INDEX)
    await fails(server, store, "another digest")


async def test_indexes_without_end(server: Scripted, store: Store) -> None:
    content, kind = manifest(LAYER), modules.OCI
    for _ in range(5):
        serve(server, content, WASM, kind=kind)
        content, kind = modules.index(descriptor(content, kind)), modules.OCI_INDEX
    await fails(server, store, "indexes lead to indexes")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (manifest(), "expected one WebAssembly layer .* found: none"),
        (manifest(descriptor(b"x", "text/plain")), "expected one WebAssembly layer .* found: text/plain"),
        (manifest(LAYER, LAYER), "expected one WebAssembly layer"),
        (
            manifest(
                LAYER,
                descriptor(b"x", "text/plain"),
                config=descriptor(b"{}", "application/vnd.wasm.config.v0+json"),
            ),
            "expected one WebAssembly layer",
        ),
        (manifest({**LAYER, "size": 2_000_000}), "has 2000000 bytes, more than the 1000000 allowed"),
        (manifest({**LAYER, "size": -1}), "has no size"),
        (manifest({**LAYER, "size": "12"}), "has no size"),
        (manifest({**LAYER, "digest": "sha256:../../../etc/passwd"}), "no digest of a kind"),
        (manifest({**LAYER, "mediaType": 7}), "no media type"),
        (manifest("x"), "is no descriptor"),  # type: ignore[arg-type]
        (b"[]", "JSON that is no object"),
        (b"[" * 100_000, "expected a manifest"),
        (b'{"schemaVersion": 1}', "expected a manifest of schemaVersion 2, found 1"),
        (b'{"schemaVersion": 2, "layers": {}}', "no list of layers"),
        (manifest(*[LAYER] * 129), "lists 129 layers"),
        (modules.index(), "expected a manifest for wasi/wasm in the index; found nothing"),
    ],
)
async def test_manifests_that_are_none(server: Scripted, store: Store, content: bytes, why: str) -> None:
    serve(server, content, WASM)
    await fails(server, store, why)


async def test_a_layer_that_is_no_module(server: Scripted, store: Store) -> None:
    data = b"#!/bin/sh\n"
    serve(server, manifest(descriptor(data, "application/wasm")), data)
    await fails(server, store, "not WebAssembly: the bytes 00 61 73 6d")


def put(path: str, kind: bytes, link: str = "") -> Callable[[tarfile.TarFile], None]:
    def fill(archive: tarfile.TarFile) -> None:
        modules.add(archive, path, b"" if kind != tarfile.REGTYPE else b"x", kind, link)
        if path != "app.wasm":
            modules.add(archive, "app.wasm", WASM)

    return fill


def sparse() -> bytes:
    """An archive whose one file has a size that no disk could hold."""
    entry = tarfile.TarInfo("app.wasm")
    entry.size = 1 << 60
    return entry.tobuf(tarfile.GNU_FORMAT) + b"x" * 512


def long_header(size: int) -> bytes:
    entry = tarfile.TarInfo("././@PaxHeader")
    entry.type, entry.size = tarfile.XHDTYPE, size
    return entry.tobuf(tarfile.USTAR_FORMAT) + bytes(size)


def serve_image(server: Scripted, config: bytes, layer: bytes, packing: str = "") -> None:
    content = manifest(descriptor(layer, TAR + packing), config=descriptor(config, modules.OCI_CONFIG))
    serve(server, content, config, layer)


TAR = "application/vnd.oci.image.layer.v1.tar"
LAYERS = [
    (tar(put("../" * 2000 + "evil", tarfile.REGTYPE)), "", "a name of 6004 characters"),
    (tar(put("app.wasm", tarfile.SYMTYPE, "/etc/passwd")), "", "'app.wasm' is no file in its layers"),
    (tar(put("app.wasm", tarfile.SYMTYPE, "app.wasm")), "", "more than 40 links"),
    (tar(put("app.wasm", tarfile.LNKTYPE, "other")), "", "hard link to what is no file"),
    (tar(put("app.wasm", tarfile.DIRTYPE)), "", "'app.wasm' is no file in its layers"),
    (tar(put("app.wasm", tarfile.CHRTYPE)), "", "'app.wasm' is no file in its layers"),
    (tar_of({"app.wasm": b"text"}), "", "not WebAssembly"),
    (tar_of({"other.wasm": WASM}), "", "'app.wasm' is no file in its layers"),
    (tar_of({".wh.app.wasm": b""}), "", "'app.wasm' is no file in its layers"),
    (sparse(), "", "entry of 1152921504606846976 bytes"),
    (long_header(2_000_000), "+gzip", "header of 2000000 bytes"),
    (tar_of({"app.wasm": WASM})[:1000], "", "in the middle of its archive"),
    (b"no tar at all".ljust(1024), "", "no tar archive"),
    (tar_of({"app.wasm": bytes(2_000_000)}), "+gzip", "the module has more than the 1000000 bytes"),
    (tar_of({"other": bytes(5_000_000), "app.wasm": WASM}), "+gzip", "allowed are 4000000 in all"),
    (tar_of({f"o{i}": bytes(900_000) for i in range(9)}), "+gzip", "more than the 4000000 bytes allowed"),
    (tar_of({f"o{i}": bytes(900_000) for i in range(9)}), "+zstd", "more than the 4000000 bytes allowed"),
]


@pytest.mark.parametrize(("layer", "packing", "why"), LAYERS, ids=[why for _, _, why in LAYERS])
async def test_layers_that_are_not_to_be_trusted(
    server: Scripted, store: Store, layer: bytes, packing: str, why: str
) -> None:
    data = {"": lambda: layer, "+gzip": lambda: gzip.compress(layer), "+zstd": lambda: zstd.compress(layer)}[packing]()
    config = modules.image_config("/app.wasm", layers=[layer])
    serve(
        server, manifest(descriptor(data, TAR + packing), config=descriptor(config, modules.OCI_CONFIG)), config, data
    )
    await fails(server, store, why)


@pytest.mark.parametrize("path", ["/" + "n" * 300, "/" + "n" * 300 + "/app.wasm", "/" + "n/" * 2000])
async def test_an_entry_point_that_no_file_can_have(server: Scripted, store: Store, path: str) -> None:
    layer = tar_of({"app.wasm": WASM})
    serve_image(server, modules.image_config(path, layers=[layer]), layer)
    await fails(server, store, "'n[n/]{199}' is no file in its layers")


@pytest.mark.parametrize("digest", ["sha256:zz", "", 5, None])
async def test_a_layers_digest_that_is_none(server: Scripted, store: Store, digest: object) -> None:
    layer = tar_of({"app.wasm": WASM})
    config = json.loads(modules.image_config("/app.wasm", layers=[layer])) | {"rootfs": {"diff_ids": [digest]}}
    serve_image(server, json.dumps(config).encode(), layer)
    await fails(server, store, f"expected a digest in the configuration's diff_ids, sha256:HEX, found '{digest}'")


DAMAGED = [
    (b"plain", "+gzip", "in the middle of its archive"),
    (b"\x1f\x8bplain", "", "begins as gzip does and is damaged"),
    (b"\x28\xb5\x2f\xfd" + b"\xff" * 20, "+gzip", "begins as zstd does and is damaged"),
    (gzip.compress(bytes(3000))[:-9], "+gzip", "in the middle of its compression"),
    (gzip.compress(tar_of({"app.wasm": WASM}))[:-8] + bytes(8), "+gzip", "begins as gzip does and is damaged"),
    (zstd.compress(tar_of({"app.wasm": WASM}))[:-20], "+zstd", "in the middle of its archive|zstd"),
    (gzip.compress(zlib.compress(bytes(4_000_001), 9)), "+gzip", "no tar archive|middle of its archive"),
]


@pytest.mark.parametrize("number", range(len(DAMAGED)))
async def test_damaged_compression(server: Scripted, store: Store, number: int) -> None:
    data, packing, why = DAMAGED[number]
    config = modules.image_config("/app.wasm")
    serve(
        server, manifest(descriptor(data, TAR + packing), config=descriptor(config, modules.OCI_CONFIG)), config, data
    )
    await fails(server, store, why)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (modules.image_config("/app.wasm", platform="linux/amd64"), "expected an image for wasi/wasm, found .*linux"),
        (modules.image_config(), "no entry point"),
        (modules.image_config("/a\0b"), "NUL character"),
        (modules.image_config("/"), "no file's path"),
        (json.dumps({"os": "wasi", "architecture": "wasm", "config": {"Entrypoint": [7]}}).encode(), "to be text"),
        (b"[]", "not what it should be"),
        (b"x", "not what it should be"),
        (modules.image_config("/app.wasm", layers=[]), "expected the digests .* of 1 layers"),
        (modules.image_config("/app.wasm", layers=[b"", b""]), "expected the digests .* of 1 layers"),
        (modules.image_config("/app.wasm", layers=[b"other"]), "another content than the image's configuration says"),
    ],
)
async def test_configurations_that_cannot_be(server: Scripted, store: Store, config: bytes, why: str) -> None:
    layer = tar_of({"app.wasm": WASM})
    serve_image(server, config, layer)
    await fails(server, store, why)


async def test_a_full_disk_in_the_middle(server: Scripted, store: Store) -> None:
    large = module(900_000)
    serve(server, manifest(descriptor(large, "application/wasm")), large)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))  # what a disk does that has no more room
    try:
        await fails(server, store, "File too large", StoreError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert await pull(server, store) == large


async def test_a_registry_that_hangs_up(server: Scripted, store: Store) -> None:
    server.answers["/v2/app/manifests/v1"] = b""
    await fails(server, store, "without sending a response", Unavailable)
    assert server.paths().count("/v2/app/manifests/v1") == 4


async def test_a_pull_that_takes_too_long(store: Store) -> None:
    stopped = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await stopped.wait()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    address = "127.0.0.1:%d" % listening.sockets[0].getsockname()[1]  # noqa: UP031
    async with listening:
        clock = FakeClock()
        config = RegistryConfig(registry_mirrors=(f"r.example=http://{address}",))
        async with Puller(store, config, clock, PullLimits(seconds=0.5)) as puller:
            with pytest.raises(Unavailable, match=r"r\.example/app:v1: took longer than the 0\.5 s allowed"):
                await puller.pull(parse("r.example/app:v1"), Keyring())
        stopped.set()
    assert modules.left_in(store) == []


async def test_a_cancelled_pull_leaves_nothing(server: Scripted, store: Store) -> None:
    large = module(900_000)
    serve(server, manifest(descriptor(large, "application/wasm")), large)
    begun = asyncio.Event()

    def half(request: Request) -> bytes:
        begun.set()
        return reply(large[:800_000], length=len(large)).replace(b"Connection: close", b"Connection: keep-alive")

    server.answers[f"/v2/app/blobs/{sha(large)}"] = half
    pulling = asyncio.create_task(pull(server, store))
    await begun.wait()
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    assert modules.left_in(store) == []
