"""`wasmlet` as a process, the way a user meets it, for the tests of `wasmlet demo` and of the command line."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

WASMLET = str(Path(sys.executable).parent / "wasmlet")
PATIENCE = 100.0
"""Seconds; what bounds a whole test is a little more."""
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: mine}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  tolerations: [{{operator: Exists}}]
  containers:
  - name: c
    image: {image}
"""


class Demo:
    """A running `wasmlet`, whose output is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def line(self, pattern: str) -> re.Match[str]:
        """Wait for a line that matches."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while text := (await self.process.stdout.readline()).decode():
                self.lines.append(text)
                if match := re.search(pattern, text):
                    return match
        raise AssertionError(f"no line matches {pattern!r} in {self.lines}")

    async def end(self) -> tuple[int, str]:
        """Exit code and the whole output, once it has ended."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            self.lines.append((await self.process.stdout.read()).decode())
            return await self.process.wait(), "".join(self.lines)


OWN: dict[str, str] = {}
"""Variables that a test sets for the programs that it starts."""


@asynccontextmanager
async def wasmlet(*arguments: str) -> AsyncIterator[Demo]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WASMLET_", "KUBE"))}
    process = await asyncio.create_subprocess_exec(
        WASMLET,
        *arguments,
        env=environment | {"PYTHONUNBUFFERED": "1"} | OWN,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Demo(process)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


async def processes_with(text: str) -> list[str]:
    """Command lines of processes that name this path."""

    def read() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if text in line:
                found.append(line)
        return found

    return await asyncio.to_thread(read)
