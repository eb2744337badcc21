"""That the directories of pods are put far apart, where the file system can do that."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.runtime.harness import Runtime
from wasmlet.runtime.files import spread


def file_system(path: Path) -> str:
    found = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def attributes(path: Path) -> str:
    found = subprocess.run(["lsattr", "-d", path], capture_output=True, text=True, check=True)
    return found.stdout.split()[0]


def test_directories_are_made_for_this_user_alone_and_again_where_they_are(tmp_path: Path) -> None:
    top = tmp_path / "state" / "runtime"
    for _ in range(2):
        spread.make(top, "pods", "logs")
        assert sorted(os.listdir(top)) == ["logs", "pods"]
        assert {path.stat().st_mode & 0o777 for path in (top, top / "pods", top / "logs")} == {0o700}
    with pytest.raises(FileNotFoundError):
        spread.spread(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        spread.make(tmp_path / "file", "pods")


async def test_those_of_a_provider_are_where_the_file_system_knows_that(runtime: Runtime) -> None:
    top = runtime.state_dir / "runtime"
    if not spread.spread(top) or shutil.which("lsattr") is None:
        pytest.skip(f"{file_system(top)} has no such attribute, or there is no lsattr to read it")
    assert ["T" in attributes(top / name) for name in ("", "pods", "logs")] == [True] * 3


def test_a_file_system_without_the_attribute_is_left_as_it_is() -> None:
    place = Path("/proc/self/task")
    assert not spread.spread(place)
