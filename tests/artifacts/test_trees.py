"""Images as directories: layers over each other, files of artifacts, and what must never come of an archive."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import resource
import stat
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from tests.artifacts import modules
from tests.artifacts.modules import add, descriptor, manifest, sha, tar
from tests.artifacts.registries import Scripted, scripted
from wasmlet.artifacts import collection, trees
from wasmlet.artifacts.archives import MAX_ENTRIES
from wasmlet.artifacts.credentials import Keyring
from wasmlet.artifacts.errors import BadContent, StoreError
from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.artifacts.pull import Puller, PullLimits
from wasmlet.artifacts.references import parse
from wasmlet.artifacts.store import Lease, Store, Tree
from wasmlet.artifacts.trees import TreeMaker
from wasmlet.clock import SystemClock

TAR = "application/vnd.oci.image.layer.v1.tar"
Fill = Callable[[tarfile.TarFile], None]
FILE, LINK, HARD, FOLDER = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


def layer(*entries: tuple[str, bytes | str] | tuple[str, bytes | str, bytes]) -> bytes:
    """A layer: path and content of each file, or path, target and kind of what is none."""

    def fill(archive: tarfile.TarFile) -> None:
        for path, content, *kind in entries:
            if isinstance(content, bytes):
                add(archive, path, content)
            else:
                add(archive, path, kind=kind[0] if kind else FOLDER, link=content)

    return tar(fill)


def unpacked(directory: Path, *layers: bytes, limit: int = 10**7) -> dict[str, str]:
    """What layers come to: what each path is."""
    directory.mkdir(exist_ok=True)
    with TreeMaker(directory, limit) as making:
        for one in layers:
            making.unpack(io.BytesIO(one), sha(one))
        return listed(making.path / "files")


def listed(root: Path) -> dict[str, str]:
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            shown = str(path.relative_to(root))
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                found[shown] = f"-> {os.readlink(path)}"
            elif stat.S_ISDIR(mode):
                found[shown] = "/"
            else:
                found[shown] = path.read_text() + ("*" if mode & 0o111 else "")
            if not stat.S_ISLNK(mode):
                assert stat.S_IMODE(mode) in (0o755, 0o644)
    return found


def test_layers_go_over_each_other(tmp_path: Path) -> None:
    first = layer(("a/one", b"1"), ("a/two", b"2"), ("b", b"b"), ("c/x", b"x"), ("link", "a/one", LINK))
    second = layer(("a/.wh.one", b""), ("b", b"B"), ("c", b"now a file"), ("link", ""), ("link/in", b"in"))
    assert unpacked(tmp_path / "t", first, second) == {
        "a": "/", "a/two": "2", "b": "B", "c": "now a file", "link": "/", "link/in": "in",
    }  # fmt: skip


def test_an_opaque_directory_hides_what_is_below_and_not_what_its_layer_has(tmp_path: Path) -> None:
    first, second = layer(("a/one", b"1"), ("a/b/c", b"c")), layer(("a/two", b"2"), ("a/.wh..wh..opq", b""))
    assert unpacked(tmp_path / "t", first, second) == {"a": "/", "a/two": "2"}
    assert unpacked(tmp_path / "t", first, layer((".wh..wh..opq", b""), ("z", b""))) == {"z": ""}


def test_an_opaque_directory_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a layer says it, under whatever name the directory has."""
    looks, really = [], os.listdir

    def look(path: int) -> list[str]:
        looks.append(path)
        return really(path)

    monkeypatch.setattr(trees.os, "listdir", look)
    below = layer(*((f"a/{i}", b"x") for i in range(200)), ("b", "a", LINK))
    again = [entry for i in range(200) for entry in ((f"a/n{i}", b""), (f"{'ab'[i % 2]}/.wh..wh..opq", b""))]
    found = unpacked(tmp_path / "t", below, layer(*again))
    assert found == {"a": "/", "b": "-> a", **{f"a/n{i}": "" for i in range(200)}}
    assert len(looks) == 1


def test_a_whiteout_by_another_name_leaves_what_its_layer_has(tmp_path: Path) -> None:
    below = layer(("a/old", b"x"), ("b", "a", LINK))
    over = layer(("a/new", b""), ("b/.wh.new", b""), ("b/.wh.old", b""), (".wh." + "n" * 255, b""))
    assert unpacked(tmp_path / "t", below, over) == {"a": "/", "a/new": "", "b": "-> a"}


def test_links(tmp_path: Path) -> None:
    one = layer(
        ("a", b"1"), ("b", "a", HARD), ("c", "../../etc/passwd", LINK), ("a", "a", HARD), ("d" * 200, "x" * 200, LINK)
    )
    found = unpacked(tmp_path / "t", one, layer(("a", b"2")))
    assert found == {"a": "2", "b": "1", "c": "-> ../../etc/passwd", "d" * 200: "-> " + "x" * 200}


def test_modes_and_owners_are_dropped(tmp_path: Path) -> None:
    def fill(archive: tarfile.TarFile) -> None:
        for name, mode in (("setuid", 0o4755), ("secret", 0o600), ("open", 0o666)):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.uid = mode, 4711
            archive.addfile(entry)

    tmp_path.joinpath("t").mkdir()
    before = os.umask(0o077)
    try:
        assert unpacked(tmp_path / "t", tar(fill)) == {"setuid": "*", "secret": "", "open": ""}
    finally:
        os.umask(before)


OUTSIDE = "/tmp"
BAD = [
    ([layer(("b", "/etc/passwd", HARD))], "whose part 'etc' is no directory"),
    ([layer(("b", "../x", HARD))], "hard link to what is no file"),
    ([layer(("b", "none", HARD))], "hard link to what is no file"),
    ([layer(("b", "none/other", HARD))], "whose part 'none' is no directory"),
    ([layer(("a", b""), ("a/b", b""))], "whose part 'a' is no directory"),
    ([layer(("a", "a", LINK), ("a/b", b""))], "more than 40 links"),
    ([layer(("b", "", LINK))], "a symbolic link to nothing"),
    ([layer(("a/" * 200 + "b", b""))], "nested more than 100"),
    ([layer(("a" * 300, b""))], "a name too long for a file"),
    ([layer(("a", b"x" * 600_000)), layer(("b", b"x" * 600_000))], r"allowed are 39\d+ in all"),
]


@pytest.mark.parametrize(("layers", "why"), BAD, ids=[why for _, why in BAD])
def test_what_is_refused_whole(tmp_path: Path, layers: list[bytes], why: str) -> None:
    with pytest.raises(BadContent, match=why):
        unpacked(tmp_path / "t", *layers, limit=1_000_000)
    assert list((tmp_path / "t").iterdir()) == []
    assert not Path("/tmp/evil").exists()


BELOW = [
    ([layer(("../evil", b"x"))], {"evil": "x"}),
    ([layer(("/evil", b"x"))], {"evil": "x"}),
    ([layer(("a", OUTSIDE, LINK), ("a/evil", b"x"))], {"a": f"-> {OUTSIDE}", "tmp": "/", "tmp/evil": "x"}),
    ([layer(("a", "../tmp", LINK)), layer(("a/evil", b"x"))], {"a": "-> ../tmp", "tmp": "/", "tmp/evil": "x"}),
    ([layer(("tmp/evil", b"x"), ("a", OUTSIDE, LINK)), layer(("a/.wh.evil", b""))], {"a": f"-> {OUTSIDE}", "tmp": "/"}),
    ([layer(("a", "/etc/passwd", LINK), ("b", "a", HARD))], {"a": "-> /etc/passwd", "b": "-> /etc/passwd"}),
    ([layer(("etc/x", b"x"), ("b", "/etc/x", HARD))], {"etc": "/", "etc/x": "x", "b": "x"}),
    ([layer(("dev/null", "", tarfile.CHRTYPE))], {"dev": "/"}),
    ([layer(("a", b"x")), layer(("a", "", tarfile.FIFOTYPE), (".wh...", b""))], {}),
]


@pytest.mark.parametrize(("layers", "expected"), BELOW)
def test_what_leads_out_of_an_image_stays_in_it(tmp_path: Path, layers: list[bytes], expected: dict[str, str]) -> None:
    marker = Path(OUTSIDE, "evil")
    assert not marker.exists()
    assert unpacked(tmp_path / "t", *layers) == expected
    assert not marker.exists()


names = st.sampled_from(["a", "b", "a/b", "a/b/c", "b/a", ".wh.a", "a/.wh.b", "a/.wh..wh..opq", "c"])
targets = st.sampled_from(["a", "b", "a/b", "/", "..", "/etc", "../outside", "c"])
entries = st.one_of(
    st.tuples(names, st.sampled_from([b"", b"x"])),
    st.tuples(names, targets, st.sampled_from([LINK, HARD, FOLDER])),
)


@given(layers=st.lists(st.lists(entries, max_size=8), min_size=1, max_size=3))
def test_nothing_is_ever_touched_outside(
    tmp_path_factory: pytest.TempPathFactory, layers: list[list[tuple[str, bytes | str]]]
) -> None:
    top = tmp_path_factory.mktemp("top")
    (top / "outside").write_text("outside")
    with contextlib.suppress(BadContent):
        unpacked(top / "t", *(layer(*one) for one in layers))
    assert sorted(path.name for path in top.iterdir()) == ["outside", "t"]
    assert (top / "outside").read_text() == "outside"
    assert list((top / "t").iterdir()) == []


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wasmlet.artifacts.trees.MAX_ENTRIES", 3)
    assert MAX_ENTRIES > 3
    with pytest.raises(BadContent, match="more than 3 files"):
        unpacked(tmp_path / "t", layer(("a", b""), ("b", b"")), layer(("c", b""), ("d", b"")))


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Scripted]:
    async with scripted() as found:
        yield found


async def pull(server: Scripted, store: Store, limit: int = 10**6) -> Lease[Tree]:
    config = RegistryConfig(insecure_registries=(server.address,))
    async with Puller(store, config, SystemClock(), PullLimits(tree_bytes=limit)) as puller:
        return (await puller.pull_tree(parse(f"{server.address}/app:v1"), Keyring())).lease


def serve(server: Scripted, *layers: bytes, platform: str = "linux/amd64", packing: str = "+gzip") -> bytes:
    config = modules.image_config(platform=platform, layers=layers)
    packed = [gzip.compress(one) for one in layers]
    content = manifest(
        *(descriptor(one, TAR + packing) for one in packed), config=descriptor(config, modules.OCI_CONFIG)
    )
    modules.serve(server, content, config, *packed)
    return content


async def test_a_container_image_of_any_platform(server: Scripted, store: Store) -> None:
    content = serve(server, layer(("a", b"1"), ("b", b"b")), layer(("a", b"2")))
    with await pull(server, store) as lease:
        assert listed(lease.path) == {"a": "2", "b": "b"}
        assert lease.image.digest == sha(content)
    assert [path.name for path in store.ingest.iterdir()] == []
    asked = len(server.asked)
    with await pull(server, store):
        assert len(server.asked) == asked + 1  # the manifest alone
    reference = parse(f"{server.address}/app:v1")
    for wanted in (reference, reference.at(sha(content))):
        again = store.find_tree(wanted)
        assert again is not None
        again.close()
    assert store.find(reference) is None


async def test_an_index_of_platforms(server: Scripted, store: Store) -> None:
    content = serve(server, layer(("a", b"1")))
    attested = descriptor(b"x", modules.OCI, platform={"os": "unknown", "architecture": "unknown"})
    for platform in ("linux/s390x", "wasi/wasm"):
        system, _, architecture = platform.partition("/")
        here = descriptor(content, modules.OCI, platform={"os": system, "architecture": architecture})
        modules.serve(server, modules.index(attested, here), kind=modules.OCI_INDEX)
        server.answers[f"/v2/app/manifests/{sha(content)}"] = modules.reply(content, Content_Type=modules.OCI)
        with await pull(server, store) as lease:
            assert listed(lease.path) == {"a": "1"}


async def test_an_artifact_has_files(server: Scripted, store: Store) -> None:
    title = {"annotations": {"org.opencontainers.image.title": "data/words.txt"}}
    packed = gzip.compress(layer(("folder/in", b"in")))
    folder = {"annotations": {"org.opencontainers.image.title": "folder", "io.deis.oras.content.unpack": "true"}}
    content = manifest(
        descriptor(b"words", "text/plain", **title),
        descriptor(b"nameless", "text/plain"),
        descriptor(packed, TAR + "+gzip", **folder),
        descriptor(b"{}", "application/vnd.oci.empty.v1+json"),
    )
    modules.serve(server, content, b"words", b"nameless", packed)
    with await pull(server, store) as lease:
        assert listed(lease.path) == {
            "data": "/", "data/words.txt": "words", sha(b"nameless").replace(":", "-"): "nameless",
            "folder": "/", "folder/in": "in",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("title", "why"),
    [
        ("../evil", "leads out"),
        ("/evil", "leads out"),
        (".", "without a name"),
        ("same", "two files of the name 'same'"),
        ("n" * 300, "a name too long for a file"),
        ("n" * 300 + "/in", "a name too long for a file"),
    ],
)
async def test_names_of_an_artifacts_files_that_cannot_be(server: Scripted, store: Store, title: str, why: str) -> None:
    annotations = {"annotations": {"org.opencontainers.image.title": title}}
    content = manifest(descriptor(b"1", "text/plain", **annotations), descriptor(b"2", "text/plain", **annotations))
    modules.serve(server, content, b"1", b"2")
    with pytest.raises(BadContent, match=why):
        await pull(server, store)
    assert modules.left_in(store) == []
    assert list(store.ingest.iterdir()) == []


async def test_what_fails_leaves_nothing(server: Scripted, store: Store) -> None:
    serve(server, layer(("a", b"x" * 10_000)))
    with pytest.raises(BadContent, match="more than the 5000 bytes allowed, uncompressed"):
        await pull(server, store, 5000)
    assert modules.left_in(store) == []
    config = modules.image_config(layers=[b"other"])
    packed = gzip.compress(layer(("a", b"")))
    content = manifest(descriptor(packed, TAR + "+gzip"), config=descriptor(config, modules.OCI_CONFIG))
    modules.serve(server, content, config, packed)
    with pytest.raises(BadContent, match="another content than the image's configuration says"):
        await pull(server, store)
    assert modules.left_in(store) == []
    assert list(store.ingest.iterdir()) == []


async def test_a_full_disk_in_the_middle(server: Scripted, store: Store) -> None:
    serve(server, layer(("a", os.urandom(1000) * 900)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))  # what a disk does that has no more room
    try:
        with pytest.raises(StoreError, match="File too large"):
            await pull(server, store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert modules.left_in(store) == []
    assert list(store.ingest.iterdir()) == []


async def test_trees_are_collected_when_nobody_mounts_them(server: Scripted, store: Store) -> None:
    serve(server, layer(("a", b"1")))
    lease = await pull(server, store)
    limits = collection.Limits(max_age=50)

    def collected() -> tuple[str, ...]:
        tree = store.tree(lease.image.digest)
        if tree.exists():
            os.utime(tree, (1000, 1000))
        return collection.collect(store, limits, store.clock, lambda _: 0).images

    assert collected() == ()
    again = store.lease_tree(lease.image.digest)
    lease.close()
    assert again is not None
    assert collected() == ()
    again.close()
    assert collected() == (lease.image.digest,)
    assert modules.left_in(store) == []
    assert list(store.trees.iterdir()) == []


async def test_a_tree_that_is_not_whole_is_made_again(server: Scripted, store: Store) -> None:
    serve(server, layer(("a", b"1")))
    with await pull(server, store) as lease:
        (lease.path.parent / "tree.json").write_text("{")
    with await pull(server, store) as lease:
        assert listed(lease.path) == {"a": "1"}


def test_what_a_process_left_that_died_is_cleared_away(store: Store) -> None:
    left = store.ingest / "left.part"
    (left / "files" / "a").mkdir(parents=True)
    os.utime(left, (1000, 1000))
    with TreeMaker(store.ingest, 100) as making:
        os.utime(making.path, (1000, 1000))
        store.clear_up()
        assert making.path.exists()
    assert list(store.ingest.iterdir()) == []
