"""A guest of wasmer's and the files of the node: every path call of WASI, past a libc that would mend what it asks for.

wasmer itself follows absolute paths and links anywhere. What is tested is that nothing outside of the mounts is read,
listed or changed, and nothing inside of those that are read-only is changed, however it is asked for. Guests run as
root here: no call that changes something may ever aim at anything but the test's own directory, since it would hit if
the confinement failed.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from wasmlet_wasmer import WasmerProvider

from tests.runtime.harness import Runtime, pod_of
from wasmlet.runtime import RuntimeConfig

SECRET = "nobody is to read this"
CALLS = ("read", "write", "append", "list", "mkdir", "rmdir", "unlink", "times")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What no container mounts."""
    directory = tmp_path / "outside"
    (directory / "empty").mkdir(parents=True)
    (directory / "secret").write_text(SECRET)
    return directory


@pytest.fixture
def volume(tmp_path: Path, outside: Path) -> Path:
    """What containers mount: a file, and links that lead inside and out."""
    directory = tmp_path / "volume"
    (directory / "sub").mkdir(parents=True)
    (directory / "empty").mkdir()
    (directory / "file").write_text("content")
    (directory / "plain").mkdir()
    (directory / "plain" / "inner").write_text("inner")
    (directory / "link").symlink_to("file")
    (directory / "absolute").symlink_to(outside)
    (directory / "relative").symlink_to("../outside")
    (directory / "absolute-secret").symlink_to(outside / "secret")
    (directory / "relative-secret").symlink_to("../outside/secret")
    (directory / "hop").symlink_to("sub/hop")
    (directory / "sub" / "hop").symlink_to("../relative")
    for path in (directory, *directory.rglob("*"), outside, *outside.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o777)  # that nothing but the confinement is in the way
    return directory


@pytest.fixture(params=["none", "2000000000-2099999999"])
async def node(
    request: pytest.FixtureRequest, wasmer: Path, tmp_path: Path, volume: Path
) -> AsyncGenerator[Runtime, None]:
    """Guests run as the node's own user, whom no file's mode keeps out, and each as one of its own."""
    config = RuntimeConfig(allow_local_modules=True, allow_host_path=(str(tmp_path),), pod_users=request.param)
    async with Runtime(WasmerProvider, tmp_path / "state", config) as started:
        yield started


def mounting(volume: Path, image: Path, *args: str, read_only: bool = False, name: str = "web") -> Any:
    spec = {"volumes": [{"name": "v", "hostPath": {"path": str(volume)}}]}
    mounts = [{"name": "v", "mountPath": "/v", "readOnly": read_only}]
    return pod_of(*args, name=name, image=f"file://{image}", spec=spec, volumeMounts=mounts)


def content(directory: Path) -> dict[str, Any]:
    """All that is in a directory, with what a guest could change of it."""
    found = {}
    for path in sorted(directory.rglob("*")):
        state = path.lstat()
        found[str(path.relative_to(directory))] = (
            state.st_mode,
            state.st_mtime_ns,
            state.st_nlink if path.is_file() else 0,
            path.read_bytes() if path.is_file() and not path.is_symlink() else b"",
        )
    return found


async def said(node: Runtime, pod: Any) -> list[str]:
    key = await node.create(pod)
    ended = await node.ended(key)
    assert ended.exit_code == 0, ended
    return (await node.log(key)).decode().splitlines()


def ways(outside: Path, name: str, descriptor: str = "4") -> list[str]:
    """Paths that lead to something outside; links are in the volume."""
    found = [str(outside / name), f"../outside/{name}", f"sub/../../outside/{name}"]
    if descriptor in ("3", "4"):
        links = [f"{link}/{name}" for link in ("absolute", "relative", "hop")]
        links += [f"{link}-secret" for link in ("absolute", "relative")] if name == "secret" else []
        found += [f"v/{link}" for link in links] if descriptor == "3" else links
    return found


@pytest.mark.parametrize("descriptor", ["3", "4", "5", "6"])
async def test_nothing_outside(node: Runtime, walker: Path, volume: Path, outside: Path, descriptor: str) -> None:
    """From each directory that a guest has: the root that wasmer makes up, and its mounts."""
    calls = []
    for call in CALLS:
        for name in ("secret", "new", "empty", "."):
            for path in ways(outside, name, descriptor):
                calls += [call, descriptor, path]
    for path in (*ways(outside, "secret", descriptor), "file"):
        for target in (*ways(outside, "new", descriptor), "stolen"):
            calls += ["rename", descriptor, path, target] if (path, target) != ("file", "stolen") else []
            calls += ["link", descriptor, path, target]
    for target in ways(outside, "new", descriptor):
        calls += ["symlink", descriptor, str(outside / "secret"), target]
    before = content(outside)
    lines = await said(node, mounting(volume, walker, *calls))
    assert content(outside) == before
    assert not [line for line in lines if SECRET in line]
    # A directory that is there already counts as made, and a link in the volume may be removed there.
    opened = ("read ", "write", "append", "list", "rmdir", "unlink /", "unlink ../", "rename")
    assert [line for line in lines if line.startswith(opened) and line.endswith(": 0")] == []
    assert len([line for line in lines if line.startswith(opened)]) > 80
    assert "stolen" not in os.listdir(volume)
    assert (volume / "file").read_text() == "content"


async def test_what_is_inside(node: Runtime, walker: Path, volume: Path) -> None:
    calls = "read 4 file write 4 new append 4 file list 4 plain mkdir 4 made rmdir 4 made rename 4 new sub/new"
    lines = await said(node, mounting(volume, walker, *calls.split(), "read", "4", "link"))
    assert lines == [
        "contentread file: 0",
        "write new: 0",
        "append file: 0",
        "1 names",
        "list plain: 0",
        "mkdir made: 0",
        "rmdir made: 0",
        "rename new: 0",
        "contentwrittenread link: 0",
    ]
    assert (volume / "sub" / "new").read_text() == "written"
    assert (volume / "file").read_text() == "contentwritten"
    assert not (volume / "made").exists()


@pytest.mark.parametrize("descriptor", ["4", "3"])
async def test_nothing_changes_in_what_is_read_only(node: Runtime, walker: Path, volume: Path, descriptor: str) -> None:
    below = "v/" if descriptor == "3" else ""
    calls = []
    for call in ("write", "append", "mkdir", "rmdir", "unlink", "times"):
        for name in ("file", "link", "new", "empty", "sub/new", str(volume / "file"), str(volume / "new")):
            calls += [call, descriptor, name if name.startswith("/") else below + name]
    for target in ("new", "sub/new", str(volume / "new")):
        calls += ["rename", descriptor, below + "file", target, "link", descriptor, below + "file", target]
        calls += ["symlink", descriptor, "file", target]
    before = content(volume)
    lines = await said(node, mounting(volume, walker, *calls, read_only=True))
    assert content(volume) == before
    changed = ("write", "append", "mkdir", "rmdir", "unlink", "rename")
    assert [line for line in lines if line.startswith(changed) and line.endswith(": 0")] == []


async def test_what_is_read_only_can_be_read(node: Runtime, driver: Path, volume: Path) -> None:
    words = ("cat", "/v/file", "cat", "/v/link", "ls", "/v/plain", "stat", "/v/file")
    lines = await said(node, mounting(volume, driver, *words, read_only=True))
    assert lines == ["contentcontentinner", "stat /v/file: file of 7 bytes"]


async def test_without_mounts_of_its_own(node: Runtime, walker: Path, outside: Path) -> None:
    """There are still those that every container has. The machine's own files are only read, should that not fail."""
    calls = []
    for descriptor in "0123456789":
        for path in (str(outside / "secret"), f"../../..{outside}/secret"):
            calls += ["read", descriptor, path, "write", descriptor, path]
        for path in ("/etc/passwd", "/proc/self/environ", "/proc/self/maps"):
            calls += ["read", descriptor, path]
    before = content(outside)
    lines = await said(node, pod_of(*calls, image=f"file://{walker}"))
    assert content(outside) == before
    assert [line for line in lines if line.endswith(": 0")] == []
    assert len(lines) == 70


async def test_a_place_for_a_link(node: Runtime, driver: Path, volume: Path) -> None:
    """What another pod has left in a shared volume leads no further than what one's own links do."""
    (volume / "trap").symlink_to("/proc/self/root/etc/passwd")
    (volume / "mine").symlink_to("/proc/self/environ")
    lines = await said(node, mounting(volume, driver, "open", "/v/trap", "open", "/v/mine", "ls", "/v/plain"))
    assert lines == ["Operation not permitted", "Operation not permitted", "inner"]
