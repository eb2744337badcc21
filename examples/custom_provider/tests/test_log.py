"""The log of a container: rotation, times and what a reader may ask for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from wasmlet_processes.log import Log

import wasmlet


async def read(log: Log, **options: Any) -> bytes:
    return b"".join([piece async for piece in log.read(wasmlet.LogOptions(**options))])


async def test_a_log_is_rotated_between_lines(tmp_path: Path) -> None:
    log, at = Log(tmp_path / "log", 1000), datetime.now(UTC)
    for number in range(1000):
        await log.write(b"line %d\n" % number, at)
    kept = (await read(log)).splitlines()
    assert kept[-1] == b"line 999"
    assert kept == [b"line %d" % n for n in range(1000 - len(kept), 1000)]
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}  # noqa: ASYNC240
    assert sizes.keys() == {"log", "log.1"}
    assert sum(sizes.values()) < 2200
    log.remove()
    assert (await read(log)).splitlines() == kept  # who reads goes on


async def test_a_line_that_comes_in_pieces_has_one_time(tmp_path: Path) -> None:
    log, at = Log(tmp_path / "log", 1000), datetime(2026, 1, 1, tzinfo=UTC)
    for second, piece in enumerate([b"a", b"b\n\nc", b"d\n", b"e"]):
        await log.write(piece, at + timedelta(seconds=second))
    assert await read(log) == b"ab\n\ncd\ne"
    stamp = "2026-01-01T00:00:0{}.000000Z ".format
    expected = f"{stamp(0)}ab\n{stamp(1)}\n{stamp(1)}cd\n{stamp(3)}e"
    assert await read(log, timestamps=True) == expected.encode()
    assert await read(log, tail_lines=2) == b"cd\ne"
    assert await read(log, since_time=at + timedelta(seconds=1)) == b"\ncd\ne"
    assert await read(log, limit_bytes=4, timestamps=True) == b"2026"
