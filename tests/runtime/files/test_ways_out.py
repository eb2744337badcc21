"""Ways out of a mount that were tried: links that a guest planted, and paths that change while they are used."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.runtime.files.test_refused_mounts import EMPTY, refusal
from tests.runtime.files.test_volumes import mounts
from tests.runtime.harness import Runtime, pod_of
from wasmlet.errors import WasmletError
from wasmlet.runtime.files import beneath
from wasmlet.runtime.files.hostpath import HostPaths

LIBC = ctypes.CDLL(None)


async def test_a_link_that_a_guest_planted_leads_nobody_out(runtime: Runtime, image: str) -> None:
    """The first container plants links; the second is to mount what they lead to."""
    state = runtime.state_dir / "runtime"
    (state / "secret").mkdir()
    (state / "secret" / "key").write_text("hush")
    up = "../" * 6 + "secret"
    planted = ("symlink", up, "/v/up", "mkdir", "/v/d", "symlink", f"../{up}", "/v/d/e")
    init = [{"name": "init", "image": image, "args": list(planted), "volumeMounts": mounts()}]
    for number, sub in enumerate(("up", "up/key", "d/e", "d/e/key", "up/made")):
        spec = {"volumes": [{"name": "v", **EMPTY}], "initContainers": init}
        pod = pod_of("cat", "/m", "cat", "/m/key", image=image, name=f"p{number}", spec=spec,
                     volumeMounts=mounts("/m", subPath=sub))  # fmt: skip
        key = await runtime.create(pod)
        assert (await runtime.waiting(key, "CreateContainerConfigError")).message == refusal(
            0,
            "subPath",
            f'failed to prepare subPath for volumeMount "v" of container "main": {sub}: it leads out of the volume',
        )
        assert (await runtime.log(key, "init")).count(b": ok\n") == 3
        await runtime.provider.delete_pod(key, 0)
    assert sorted(os.listdir(state / "secret")) == ["key"]


@contextlib.contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Exchange two names as fast as it goes, each time at one blow."""
    stopped = threading.Event()
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE

    def swap() -> None:
        while not stopped.is_set():
            LIBC.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        yield
    finally:
        stopped.set()
        swapper.join()


def _open_and_check(inside: Path, opening: Callable[[], int]) -> None:
    """Open until it went well and was refused many times; what was opened is always inside."""
    opened, refused = 0, 0
    while opened < 100 or refused < 100:
        try:
            descriptor = opening()
        except (OSError, WasmletError):
            refused += 1
            continue
        where = os.readlink(f"/proc/self/fd/{descriptor}")
        os.close(descriptor)
        assert where.startswith(f"{inside}/"), where
        opened += 1


def test_paths_that_are_swapped_while_they_are_opened(tmp_path: Path) -> None:
    """A guest that turns a directory into a link and back gains nothing, at any moment."""
    inside, outside = tmp_path / "volume", tmp_path / "outside"
    (inside / "real").mkdir(parents=True)
    outside.mkdir()
    (inside / "link").symlink_to("../outside")
    root = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    numbers = itertools.count()
    try:
        with swapping(inside / "real", inside / "link"):
            _open_and_check(inside, lambda: beneath.make_beneath(root, f"real/{next(numbers)}/deep", 0o755))
    finally:
        os.close(root)
    assert os.listdir(outside) == []


def test_a_host_path_that_is_swapped_while_it_is_opened(tmp_path: Path) -> None:
    inside, outside = tmp_path / "allowed", tmp_path / "outside"
    (inside / "real").mkdir(parents=True)
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    numbers = itertools.count()
    host_paths = HostPaths([inside])
    with swapping(inside / "real", inside / "link"):
        _open_and_check(inside, lambda: host_paths.open(f"{inside}/real", "Directory"))
        _open_and_check(inside, lambda: host_paths.open(f"{inside}/real/{next(numbers)}", "DirectoryOrCreate"))
    assert os.listdir(outside) == []


def test_usage_and_removal_do_not_leave_the_tree(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    (outside / "big").write_bytes(b"x" * 1_000_000)
    (tree / "out").symlink_to(outside)
    (tree / "file").write_bytes(b"x" * 100_000)
    os.link(tree / "file", tree / "same")
    os.mkfifo(tree / "pipe")
    assert 100_000 <= beneath.usage(tree) < 200_000
    at = os.open(tree, beneath.DIRECTORY)
    for _ in range(1000):
        os.mkdir("d" * 20, dir_fd=at)
        below = os.open("d" * 20, beneath.DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    with pytest.raises(beneath.TooDeep):
        beneath.usage(tree)
    beneath.remove(tree)
    assert not tree.exists()
    assert (outside / "big").exists()
    beneath.remove(tree)


def test_a_directory_is_removed_though_files_in_it_are_renamed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the shim does with a log when it has compressed it."""
    unlink, files = os.unlink, [tmp_path / "logs" / name for name in ("a", "b", "c")]
    files[0].parent.mkdir()
    for file in files:
        file.touch()

    def renamed_first(name: str, *, dir_fd: int) -> None:
        if not name.endswith(".gz"):
            os.rename(name, f"{name}.gz", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(beneath.os, "unlink", renamed_first)
    beneath.remove(files[0].parent)
    assert not files[0].parent.exists()
