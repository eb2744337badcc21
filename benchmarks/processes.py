"""The processes that a benchmark starts (`child` is what they run): started, measured, ended. Linux only.

Each process has a session of its own, so that Ctrl-C reaches only this program, which then ends them in order. If this
program is killed, each ends by itself, because its standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import orjson

from benchmarks import child
from wasmlet.errors import WasmletError

READY = "ready"
"""The key in the last line that a child prints at its start, when it is ready."""
START_SECONDS = 60.0
STOP_SECONDS = 90.0
"""Longer than a node takes to drain."""


class BenchmarkFailed(WasmletError):
    """Something could not be measured; the message says what was expected and what came instead."""


@attrs.frozen
class Process:
    """A child that is up.

    Attributes:
        said: the values that it printed at its start, by key.
    """

    pid: int
    said: Mapping[str, Any]

    def cpu(self) -> float:
        """Seconds of CPU that all its threads have used, by the clock that clock_getcpuclockid(3) names."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def rss(self) -> float:
        """Resident memory, MiB."""
        return child.rss(self.pid)


@asynccontextmanager
async def started(*arguments: str) -> AsyncGenerator[Process, None]:
    """Run `python -m benchmarks.child ARGUMENTS`; inside the context it is up, and after it it is gone.

    Raises:
        BenchmarkFailed: it ended, or was silent for too long, before it was up. What it had to say is on stderr.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.child",
        *arguments,
        cwd=Path(__file__).parents[1],
        env={key: value for key, value in os.environ.items() if not key.startswith(("WASMLET_", "KUBE"))},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Process(process.pid, await _heard(process, arguments[0]))
    finally:
        await _end(process)


async def _heard(process: asyncio.subprocess.Process, what: str) -> dict[str, Any]:
    """Read what the child prints, until it is ready."""
    assert process.stdout is not None
    said: dict[str, Any] = {}
    try:
        async with asyncio.timeout(START_SECONDS):
            while READY not in said:
                line = await process.stdout.readline()
                if not line:
                    code = await process.wait()
                    raise BenchmarkFailed(f"the {what} process ended with status {code} before it was ready")
                said |= orjson.loads(line)
    except TimeoutError:
        raise BenchmarkFailed(f"the {what} process was not ready within {START_SECONDS:g} s") from None
    return said


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.communicate()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
