"""The files of a container image: a guest sees them read-only at their own paths, and what covers them."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import wasmtime
from wasmlet_wasmtime import WasmtimeProvider

from tests.artifacts import modules
from tests.artifacts.modules import descriptor, manifest
from tests.artifacts.registries import Scripted, scripted
from tests.guests import SOURCES
from tests.runtime.callers import Caller
from tests.runtime.dense import DenseProvider
from tests.runtime.files.imaged import LAYER, calls, lines, said, serve
from tests.runtime.harness import Runtime, pod_of
from wasmlet.errors import InvalidInput
from wasmlet.provider import PodKey
from wasmlet.runtime import RuntimeConfig
from wasmlet.runtime.files.image_files import ImageFiles

KINDS = {"process": WasmtimeProvider, "dense": DenseProvider}


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Scripted]:
    async with scripted() as made:
        yield made


@pytest_asyncio.fixture(params=sorted(KINDS))
async def runtime(request: pytest.FixtureRequest, server: Scripted, tmp_path: Path) -> AsyncIterator[Runtime]:
    config = RuntimeConfig(insecure_registries=(server.address,))
    async with Runtime(KINDS[request.param], tmp_path / "state", config) as made:
        yield made


def warnings(runtime: Runtime, key: PodKey) -> list[tuple[str, str]]:
    return [(one.reason, one.message) for one in runtime.events if one.key == key and one.type == "Warning"]


async def test_files_at_their_own_paths(runtime: Runtime, server: Scripted, driver: Path) -> None:
    image = serve(
        server, driver, {"data/a": b"first", "data/b": b"b", "top": b"top"}, {"data/a": b"second", ".wh.top": b""}
    )
    found = await said(runtime, "ls /; cat /data/a; cat data/b; cat /top; has /bin/app.wasm; print whole", image)
    assert found == ["bin data", "second", "b", "cat /top: No such file or directory", "whole"]


async def test_nobody_writes_to_them(runtime: Runtime, server: Scripted, driver: Path) -> None:
    image = serve(server, driver, {"data/a": b"a", "etc/own": b"own"})
    writes = "put /data/a x; append /data/a x; put /new x; mkdir /new; unlink /data/a; rename /data/a /data/b"
    more = "put /etc/own x; unlink /etc/own; put /bin/app.wasm x"
    found = await said(runtime, f"{writes}; {more}; cat /data/a; cat /etc/own", image)
    assert len(found) == 11
    assert not [line for line in found[:9] if line.endswith(": ok")]
    assert found[9:] == ["a", "own"]


async def test_files_beside_those_that_the_node_makes(runtime: Runtime, server: Scripted, driver: Path) -> None:
    """/etc has the pod's hosts file and /dev its termination log; the image's own files are there, too."""
    files = {
        "etc/own.conf": b"own",
        "etc/hosts": b"the image's",
        "etc/ssl/cert": b"cert",
        "dev/shm/x": b"x",
        "dev/y": b"y",
    }
    image = serve(server, driver, files)
    text = "cat /etc/own.conf; cat /etc/ssl/cert; ls /etc; cat /dev/shm/x; cat /dev/y; put /dev/y changed; cat /dev/y"
    words = [*calls(text), "put", "/dev/termination-log", "ended well"]
    key = await runtime.create(pod_of(*words, image=image))
    assert (await runtime.ended(key)).message == "ended well"
    found = await lines(runtime, key)
    assert found[:5] == ["own", "cert", "hostname hosts own.conf resolv.conf ssl", "x", "y"]
    # What a guest writes beside its termination log is its own copy, and goes with it.
    assert found[5:7] == ["put /dev/y: ok", "changed"]
    assert await said(runtime, "cat /dev/y", image, name="other") == ["y"]
    hosts = await said(runtime, "cat /etc/hosts", image, name="hosts")
    assert hosts
    assert "the image's" not in hosts


async def test_mounts_cover_the_image(runtime: Runtime, server: Scripted, driver: Path) -> None:
    image = serve(server, driver, {"data/a": b"a", "data/below/b": b"b", "conf/kept": b"kept", "conf/file": b"old"})
    spec = {"volumes": [{"name": "e", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c", "optional": True}}]}
    mounts = [{"name": "e", "mountPath": "/data/below"}, {"name": "e", "mountPath": "/conf/dir"}]
    text = "cat /data/a; cat /data/below/b; put /data/below/new x; cat /conf/kept; cat /conf/dir/new"
    found = await said(runtime, text, image, spec=spec, volumeMounts=mounts)
    assert found == ["a", "cat /data/below/b: No such file or directory", "put /data/below/new: ok", "kept", "x"]


async def test_a_mount_at_the_root_covers_all(runtime: Runtime, server: Scripted, driver: Path) -> None:
    image = serve(server, driver, {"data/a": b"a"})
    spec = {"volumes": [{"name": "e", "emptyDir": {}}]}
    mounts = [{"name": "e", "mountPath": "/"}]
    found = await said(runtime, "cat /data/a; put /x y; cat /x", image, spec=spec, volumeMounts=mounts)
    assert found == ["cat /data/a: No such file or directory", "put /x: ok", "y"]


async def test_a_single_file_beside_the_image_s_own(runtime: Runtime, server: Scripted, driver: Path) -> None:
    image = serve(server, driver, {"app/a": b"a", "app/sub/b": b"b", "app/conf": b"old", "top": b"top"})
    init = {
        "name": "i",
        "image": image,
        "args": ["put", "/v/conf", "new"],
        "volumeMounts": [{"name": "e", "mountPath": "/v"}],
    }
    spec = {"volumes": [{"name": "e", "emptyDir": {}}], "initContainers": [init]}
    for number, path in enumerate(("/app/conf", "/conf")):
        mounts = [{"name": "e", "mountPath": path, "subPath": "conf", "readOnly": True}]
        text = f"cat {path}; cat /app/a; cat /app/sub/b; cat /top; put /app/a x"
        found = await said(runtime, text, image, name=f"p{number}", spec=spec, volumeMounts=mounts)
        assert found[:4] == ["new", "a", "b", "top"]
        assert not found[4].endswith(": ok")


async def test_an_image_of_a_module_alone_has_no_files(runtime: Runtime, server: Scripted, driver: Path) -> None:
    assert await said(runtime, "ls /; cat /bin/app.wasm", serve(server, driver)) == [
        "ls /: No such file or directory",
        "cat /bin/app.wasm: No such file or directory",
    ]


async def test_files_are_there_after_the_node_loop_comes_back_and_go_with_the_pod(
    server: Scripted, driver: Path, tmp_path: Path
) -> None:
    image = serve(server, driver, {"data/a": b"a"})
    config = RuntimeConfig(
        insecure_registries=(server.address,), image_gc_high_threshold=0, image_gc_low_threshold=0, minimum_image_ttl=0
    )
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime:
        key = await runtime.create(pod_of("sleep", "1000", image=image))
        await runtime.running(key)
        around = runtime.provider.services
        store = around.registries.store
        await around.registries.keep(runtime.provider._images().modules, set())
        await around.registries.collect()
        assert len(list(store.trees.iterdir())) == 1
        await runtime.provider.delete_pod(key, 0)
        await around.registries.keep(set(), set())
        await around.registries.collect()
        assert list(store.trees.iterdir()) == []


async def test_the_working_directory_is_told_and_in_pwd(runtime: Runtime, server: Scripted, driver: Path) -> None:
    image = serve(server, driver, {"srv/data/a": b"a"}, WorkingDir="/srv//data/")
    key = await runtime.create(pod_of(*calls("env PWD; cat /srv/data/a; cat a"), image=image))
    assert await lines(runtime, key) == ["PWD=/srv/data", "a", "cat a: No such file or directory"]
    ((reason, message),) = warnings(runtime, key)
    assert reason == "WorkingDirNotApplied"
    assert message.startswith(f'Image "{image}" has the working directory /srv/data, and WASI has none')
    own = [{"name": "PWD", "value": "/mine"}]
    assert await said(runtime, "env PWD", image, name="own", env=own) == ["PWD=/mine"]
    plain = serve(server, driver, WorkingDir="/", tag="plain")
    key = await runtime.create(pod_of("env", "PWD", image=plain, name="plain"))
    await runtime.ended(key)
    assert await runtime.output(key) == b"PWD is not set\n"
    assert warnings(runtime, key) == []


async def test_links_of_an_image_do_not_leave_it(runtime: Runtime, server: Scripted, driver: Path) -> None:
    out, module = io.BytesIO(), await asyncio.to_thread(driver.read_bytes)
    with tarfile.open(fileobj=out, mode="w") as archive:
        modules.add(archive, "bin/app.wasm", module)
        modules.add(archive, "usr/lib/release", b"release")
        for path, target in (
            ("etc/release", "../usr/lib/release"), ("etc/passwd", "/etc/passwd"), ("etc/up", "../../../../../../etc"),
            ("out", "/"), ("far", "../../../../../../etc/passwd"), ("near", "usr/lib/release"),
        ):  # fmt: skip
            modules.add(archive, path, kind=tarfile.SYMTYPE, link=target)
    layer = out.getvalue()
    config, packed = modules.image_config("/bin/app.wasm", layers=[layer]), gzip.compress(layer)
    content = manifest(descriptor(packed, LAYER), config=descriptor(config, modules.OCI_CONFIG))
    modules.serve(server, content, config, packed)
    text = "cat /near; cat /etc/release; cat /etc/passwd; cat /far; cat /out/etc/passwd"
    found = await said(runtime, text, f"{server.address}/app:v1")
    assert found[:2] == ["release", "release"]
    assert [line.partition(":")[0] for line in found[2:]] == ["cat /etc/passwd", "cat /far", "cat /out/etc/passwd"]


async def test_exec_sees_them_and_runs_modules_among_them(server: Scripted, driver: Path, tmp_path: Path) -> None:
    module = await asyncio.to_thread(driver.read_bytes)
    image = serve(server, driver, {"data/a": b"a", "tools/other.wasm": module, "tools/text.wasm": b"text"})
    config = RuntimeConfig(insecure_registries=(server.address,))
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime:
        key = await runtime.create(pod_of("print", "up", "sleep", "1000", image=image))
        await runtime.logged(key, b"up")
        # The last two name no file of the image, so each is the name of the container's own program.
        for word in ("/tools/other.wasm", "/bin/app.wasm", "app.wasm", "driver.wasm"):
            caller = Caller()
            assert await runtime.provider.exec(key, "main", [word, "cat", "/data/a"], caller) == 0
            assert caller.out == b"a"
        with pytest.raises(InvalidInput, match=r"/tools/text\.wasm"):
            await runtime.provider.exec(key, "main", ["/tools/text.wasm"], Caller())


async def test_a_component_sees_them_too(server: Scripted, tmp_path: Path) -> None:
    component = tmp_path / "component.wasm"
    await asyncio.to_thread(component.write_bytes, wasmtime.wat2wasm((SOURCES / "component.wat").read_text()))
    image = serve(server, component, {"data/a": b"a"})
    config = RuntimeConfig(insecure_registries=(server.address,))
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime:
        assert await said(runtime, "cat data/a", image) == ["a"]  # in the first directory that it is given
        assert await said(runtime, "put data/a x", image, name="put") == ["error 31"]  # not permitted
        assert await said(runtime, "cat data/a", image, name="again") == ["a"]


def test_what_does_not_fit_beside_single_files_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wasmlet.runtime.files.image_files.MAX_COPY", 10)
    monkeypatch.setattr("wasmlet.runtime.files.image_files.MAX_FILES", 3)
    root, stage = tmp_path / "root", tmp_path / "stage"
    (root / "etc/one").mkdir(parents=True)
    (root / "etc/two").mkdir()
    stage.mkdir()
    for name, size in (("a", 6), ("b", 6), ("c", 4), ("d", 0), ("hosts", 1)):
        (root / "etc" / name).write_bytes(b"x" * size)
    (stage / "hosts").write_text("ours")
    image = ImageFiles.of(root)
    assert image is not None
    assert image.add_to(str(stage), "/etc", link=False) == set()
    assert sorted(os.listdir(stage)) == ["a", "c", "hosts"]
    assert (stage / "hosts").read_text() == "ours"
    found = image.directories("/etc", {"/etc/none"}, 1)
    assert [path for path, _ in found] == ["/etc/one"]
    assert image.left_out == ["/etc/b", "/etc/d", "/etc/two"]
    for _, one in found:
        os.close(one)
    image.close()
