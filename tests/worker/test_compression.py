"""Full log files are compressed beside the shim's work, and whatever becomes of them meanwhile nothing stays behind."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.harness import WORKER, running
from wasmlet.worker.supervisor.compression import Compressor


def compress(path: Path, python: str = sys.executable) -> int:
    return subprocess.run([python, "-I", "-S", str(WORKER), "compress", str(path)], env={}).returncode


def wait(compressor: Compressor) -> None:
    """Reap as the shim does, until nothing is left to do."""
    while compressor.pid:
        _, status = os.waitpid(compressor.pid, 0)
        compressor.reaped(status)


def test_compresses_one_file(tmp_path: Path, python: str) -> None:
    path = tmp_path / "0.log.1"
    path.write_bytes(b"entry\n" * 100_000)
    assert compress(path, python) == 0
    assert [found.name for found in tmp_path.iterdir()] == ["0.log.1.gz"]
    packed = tmp_path / "0.log.1.gz"
    assert gzip.decompress(packed.read_bytes()) == b"entry\n" * 100_000
    assert packed.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    assert compress(tmp_path / "0.log.1") == 0
    assert list(tmp_path.iterdir()) == []


def test_one_at_a_time_and_what_is_gone_is_passed_over(tmp_path: Path) -> None:
    compressor = Compressor()
    for number in (1, 3):
        (tmp_path / f"0.log.{number}").write_bytes(b"x" * number)
    for number in (1, 2, 3):
        compressor.add(str(tmp_path / f"0.log.{number}"))
    wait(compressor)
    assert sorted(os.listdir(tmp_path)) == ["0.log.1.gz", "0.log.3.gz"]


def test_a_log_that_is_forgotten_is_left_alone(tmp_path: Path) -> None:
    compressor = Compressor()
    os.mkfifo(tmp_path / "0.log.1")  # nobody writes to it, so compressing it takes for ever
    for name in ("0.log.2", "1.log.1"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("0.log.1", "0.log.2", "1.log.1"):
        compressor.add(str(tmp_path / name))
    compressor.forget(str(tmp_path / "0.log"))
    wait(compressor)
    assert sorted(os.listdir(tmp_path)) == ["0.log.1", "0.log.2", "1.log.1.gz"]


@pytest.mark.parametrize("keep", [2, 4])
def test_a_container_that_fills_its_log(tmp_path: Path, keep: int) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "flood", "4000", log_size=20_000, log_files=keep)
        assert shim.ended(name)["exit_code"] == 0
        while "wasmlet-gzip" in shim.children().values() or shim.waits_to_compress(name):
            shim.connection.ask("hello")
        names = sorted(os.listdir(shim.state / "logs" / name))
        full = shim.logged(name)[0]
        assert full > 10
        expected = [f"0.log.{full - back}" + (".gz" if back else "") for back in range(keep - 1)]
        assert names == sorted(["0.log", *expected])
        assert shim.connection.ask("forget", ids=[name]) == {"count": 1}
        assert (shim.state / "shim.log").read_text() == ""
