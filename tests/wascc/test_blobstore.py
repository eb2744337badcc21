"""The blob store keeps to its mounts, whatever an actor asks and whatever others have put into a volume."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wasmlet_wascc.worker.capabilities import blobstore
from wasmlet_wascc.worker.capabilities.blobstore import BlobStore
from wasmlet_wascc.worker.capability import Context, HostError, Mount

Ask = Callable[..., Any]


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume with a container `box`, beside a directory that is nobody's."""
    (tmp_path / "volume" / "box").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    return tmp_path / "volume"


def store(volume: Path, seconds: float = 30.0, told: list[Any] | None = None) -> Ask:
    """Asks the store of this volume."""
    until = time.monotonic() + seconds

    def refuse(*_: object) -> Any:
        raise AssertionError

    def tell(operation: str, value: Any, **_: object) -> None:
        assert told is not None
        told.append(value)

    mounts = {"default": Mount(str(volume), read_only=False)}
    context = Context({}, {}, mounts, refuse, refuse, tell, lambda work: work(), lambda: until)
    made = BlobStore(context)
    return lambda operation, **message: made.call("default", operation, message)


def test_links_are_not_followed(volume: Path) -> None:
    ask = store(volume, told=[])
    outside = volume.parent / "outside"
    (volume / "linked").symlink_to(outside)
    (volume / "box" / "linked").symlink_to(outside / "secret")
    for operation in ("ListObjects", "RemoveContainer"):
        with pytest.raises(HostError):
            ask(operation, id="linked")
    for operation in ("StartDownload", "StartUpload", "UploadChunk", "RemoveObject"):
        with pytest.raises(HostError):
            ask(operation, container="linked", id="secret", chunkBytes=b"x", chunkSize=5)
    for operation in ("StartDownload", "StartUpload", "UploadChunk"):
        with pytest.raises(HostError):
            ask(operation, container="box", id="linked", chunkBytes=b"x", chunkSize=5)
    assert ask("ListObjects", id="box") == {"blobs": []}
    assert ask("GetObjectInfo", container="box", id="linked")["byteSize"] != len("secret")
    ask("RemoveContainer", id="box")  # the link in it, and not what it leads to
    assert (outside / "secret").read_text() == "secret"


def test_what_is_no_file_is_none(volume: Path) -> None:
    ask = store(volume, told=[])
    os.mkfifo(volume / "box" / "pipe")
    (volume / "box" / "directory").mkdir()
    for name in ("pipe", "directory"):
        for operation in ("StartDownload", "StartUpload", "UploadChunk"):
            with pytest.raises(HostError):
                ask(operation, container="box", id=name, chunkBytes=b"x", chunkSize=5)
    with pytest.raises(HostError):
        ask("RemoveContainer", id="box")  # which has a directory that is not the store's


def test_very_many_blobs_are_removed_and_not_listed(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobstore, "_MOST_LISTED", 20)
    monkeypatch.setattr(blobstore, "_AT_ONCE", 7)
    ask = store(volume)
    for number in range(21):
        (volume / "box" / str(number)).touch()
    with pytest.raises(HostError, match="more than 20 blobs"):
        ask("ListObjects", id="box")
    ask("RemoveContainer", id="box")
    assert list(volume.iterdir()) == []


def test_nothing_goes_on_past_the_end_of_a_call(volume: Path) -> None:
    (volume / "box" / "file").touch()
    for operation in ("ListObjects", "RemoveContainer"):
        with pytest.raises(HostError, match="longer than a call may"):
            store(volume, -1.0)(operation, id="box")
    assert (volume / "box" / "file").exists()


def test_a_blob_comes_in_pieces(volume: Path) -> None:
    told: list[Any] = []
    (volume / "box" / "file").write_bytes(b"0123456789")
    store(volume, told=told)("StartDownload", container="box", id="file", chunkSize=4)
    assert [one["chunkBytes"] for one in told] == [b"0123", b"4567", b"89"]
    assert [one["sequenceNo"] for one in told] == [0, 1, 2]
