"""The directory for a termination message, which the shim makes and removes, and logs that it removes."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.worker.harness import running, wait_removed
from wasmlet.worker import wire
from wasmlet.worker.supervisor.removals import Removals
from wasmlet.worker.supervisor.termination import make

WANTED = {"mount": 0, "path": "said", "make": "pods/uid/c.0-1", "user": None}
MOUNTS = [{"path": "/dev", "read_only": False}]
NOTHING = Removals(lambda _seconds, _callback: None)
"""Nothing is to be removed."""


def test_is_made_given_and_removed_with_the_container(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        pod = shim.state / "pods" / "uid"
        pod.parent.mkdir()
        name = shim.run("start", "sleep", "1000", message=WANTED, mounts=MOUNTS)
        shim.running(name)
        assert stat.S_IMODE(pod.stat().st_mode) == 0o700
        directory, message = pod / "c.0-1", pod / "c.0-1" / "said"
        assert stat.S_IMODE(directory.stat().st_mode) == 0o755
        assert (stat.S_IMODE(message.stat().st_mode), message.stat().st_size) == (0o666, 0)
        shim.connection.ask("given", id=name)
        spec, module, mount = shim.connection.take()
        assert os.readlink(f"/proc/self/fd/{mount}") == str(directory)
        wire.close((spec, module, mount))
        assert shim.recorded(name)["made"] == "pods/uid/c.0-1"
        message.write_text("done")
        shim.connection.ask("stop", id=name, grace=0)
        record = shim.ended(name)
        assert (record["message"], record["made"], record["leaving"]) == ("done", "", "pods/uid/c.0-1/said")
        wait_removed(pod)


def test_stays_where_there_is_more_in_it(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        pod = shim.state / "pods" / "uid"
        pod.mkdir(parents=True)
        messages = [{**WANTED, "make": f"pods/uid/{container}.0-1"} for container in "ab"]
        names = [shim.run("start", "sleep", "1000", message=message, mounts=MOUNTS) for message in messages]
        for name in names:
            shim.running(name)
        (pod / "a.0-1" / "more").write_text("x")
        for name in names:
            shim.connection.ask("stop", id=name, grace=0)
        assert [shim.ended(name)["made"] for name in names] == ["pods/uid/a.0-1", ""]
        wait_removed(pod / "b.0-1")
        assert {path.name for path in pod.rglob("*")} == {"a.0-1", "said", "more"}


def test_is_not_made_where_one_is(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        (shim.state / "pods" / "uid" / "c.0-1").mkdir(parents=True)
        with pytest.raises(RuntimeError, match="message cannot be made: File exists"):
            shim.run("start", message=WANTED)
        (shim.state / "pods" / "other").symlink_to(tmp_path)
        with pytest.raises(
            RuntimeError, match=r"message cannot be made: (Not a directory|Too many levels of symbolic links)"
        ):
            shim.run("start", message={**WANTED, "make": "pods/other/c.0-1"})
        assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_full_disk_is_told_in_plain_words_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """`left`: for how many more files and directories there is room."""
    options = f"nr_inodes={2 + left}"  # its own directory, and `pods`
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path], check=False).returncode == 0
    if not mounted:
        pytest.skip("no file system can be mounted here")
    try:
        (tmp_path / "pods").mkdir()
        monkeypatch.chdir(tmp_path)
        descriptors = [3, 4]
        for _ in range(2):
            with pytest.raises(wire.WireError) as failure:
                make(WANTED, descriptors, NOTHING)
            assert str(failure.value) == (
                "the file for the termination message cannot be made: No space left on device; "
                "make room on the disk of the node's state directory"
            )
        assert descriptors == [3, 4]
        assert list(tmp_path.rglob("c.0-1")) == []
    finally:
        monkeypatch.undo()
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_belongs_to_the_pods_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pods").mkdir()
    user = 4321
    descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    try:
        make({**WANTED, "mount": 1, "user": user}, descriptors, NOTHING)
        assert os.readlink(f"/proc/self/fd/{descriptors[3]}") == str(tmp_path / "pods/uid/c.0-1")
        found = [os.stat("pods/uid/c.0-1"), os.stat("pods/uid/c.0-1/said")]
        assert {each.st_uid for each in found} == {each.st_gid for each in found} == {user}
    finally:
        wire.close(descriptors)


@pytest.mark.parametrize(
    "more",
    [
        {"make": "pods/uid"},
        {"make": "pods/../c"},
        {"make": "logs/uid/c"},
        {"make": "/pods/uid/c"},
        {"make": "pods/uid/c/d"},
        {"make": 1},
        {"mount": 1},
        {"mount": None},
        {"mount": True},
        {"path": "a/b"},
        {"path": ".."},
        {"path": ""},
        {"user": -1},
        {"user": "root"},
    ],
)
def test_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(wire.WireError, match="expected a directory to make below pods/"):
        make({**WANTED, **more}, [3, 4], NOTHING)
    assert os.listdir(tmp_path) == []


def test_logs_go_with_records(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        done, busy = shim.run("start", "print", "x"), shim.run("start", "sleep", "1000", log="logs/pod/b.0.log")
        beside = shim.run("start", "print", "x", log="logs/pod/a.0.log")
        kept = shim.run("start", "print", "x")
        for name in (done, beside, kept):
            shim.ended(name)
        shim.running(busy)
        logs = shim.state / "logs"
        (logs / kept / "0.log.1").write_text("an older part")
        names = [done, busy, beside, kept, "unknown"]
        answer = shim.connection.ask("forget", ids=names, logs=True)
        assert answer == {"count": 3, "left": [busy, beside, kept, "unknown"]}
        assert not (logs / done).exists()
        assert os.listdir(logs / "pod") == ["b.0.log"]
        assert os.listdir(logs / kept) == ["0.log.1"]
