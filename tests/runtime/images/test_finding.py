"""Modules that are files of the node: found again without waiting for a disk, and always as they are."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from wasmlet.runtime.files.beneath import open_known
from wasmlet.runtime.images import images as images_module
from wasmlet.runtime.images.images import ImageError, Images

ONE, OTHER = b"\0asm\x01\0\0\0one", b"\0asm\x01\0\0\0other"
HOUR_NS = 3600 * 10**9


class Threads(Images):
    """Counts how often a file was looked at in a thread."""

    def _look(self, path: Path) -> tuple[str, Path]:
        looks.append(path)
        return super()._look(path)


looks: list[Path] = []


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Images:
    """With a clock that is ahead: each file was changed long ago."""

    class Ahead:
        time_ns = staticmethod(lambda: time.time_ns() + HOUR_NS)

    monkeypatch.setattr(images_module, "time", Ahead)
    looks.clear()
    return Threads(True, None, 2**20)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A directory on a disk of this machine, whose kernel can say what it knows without looking."""
    if not os.major(tmp_path.stat().st_dev):
        pytest.skip("the temporary directory is not on a disk")
    try:
        os.close(open_known(str(tmp_path)))
    except OSError as error:
        if error.errno == errno.EINVAL:
            pytest.skip("the kernel is older than Linux 5.12")
    return tmp_path


async def test_a_file_that_was_read_and_is_unchanged_needs_no_thread(disk: Path, images: Images) -> None:
    path, link = disk / "x.wasm", disk / "link.wasm"
    path.write_bytes(ONE)
    link.symlink_to(path)
    first = await images.find(f"file://{path}")
    assert [await images.find(f"file://{path}") for _ in range(3)] == [first] * 3
    assert looks == [path]
    linked = await images.find(f"file://{link}")
    assert (linked.digest, linked.path, linked.command) == (first.digest, path, ("link.wasm",))


async def test_a_file_that_changes_is_read_again(disk: Path, images: Images) -> None:
    path, link = disk / "x.wasm", disk / "link.wasm"
    path.write_bytes(ONE)
    link.symlink_to(path)
    first = await images.find(f"file://{link}")
    path.write_bytes(OTHER)
    changed = await images.find(f"file://{link}")
    assert (changed.digest, changed.path) == ((await images.find(f"file://{path}")).digest, path)
    assert changed.digest != first.digest
    (disk / "new").write_bytes(ONE)
    (disk / "new").replace(path)
    assert (await images.find(f"file://{link}")).digest == first.digest
    (disk / "y.wasm").write_bytes(OTHER)
    link.unlink()
    link.symlink_to(disk / "y.wasm")
    other = await images.find(f"file://{link}")
    assert (other.digest, other.path) == (changed.digest, disk / "y.wasm")
    link.unlink()
    with pytest.raises(ImageError, match="is no module that pods may run"):
        await images.find(f"file://{link}")


def test_what_the_kernel_does_not_know_is_not_looked_for(disk: Path) -> None:
    path = disk / "never looked at"
    with pytest.raises(OSError, match=r"Resource temporarily unavailable|No such file"):
        open_known(str(path))
    path.write_bytes(ONE)
    found = open_known(str(path))
    try:
        assert os.readlink(f"/proc/self/fd/{found}") == str(path.resolve())
    finally:
        os.close(found)
