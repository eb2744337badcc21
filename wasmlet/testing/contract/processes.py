"""The processes below this one, by /proc: what a provider has started, and what of it is left."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import attrs

PROC = Path("/proc")
LOOK_SECONDS = 0.05


@attrs.frozen
class Process:
    """A process. The time of its start tells it from a later one with the same number."""

    pid: int
    started: str


def below() -> set[Process]:
    """All processes that this one and its children have started and that run; empty where there is no /proc."""
    parents: dict[Process, int] = {}
    if PROC.is_dir():
        for entry in PROC.iterdir():
            if entry.name.isdigit() and (found := _read(int(entry.name))) is not None:
                parents[found[0]] = found[1]
    family, found_more = {os.getpid()}, True
    while found_more:
        more = {process.pid for process, parent in parents.items() if parent in family} - family
        family |= more
        found_more = bool(more)
    return {process for process in parents if process.pid in family and process.pid != os.getpid()}


async def left_of(processes: set[Process], seconds: float) -> list[str]:
    """Those that still run after that time, as text; returns at once when none does."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        left = [each for each in processes if (now := _read(each.pid)) is not None and now[0] == each]
        if not left or loop.time() > end:
            return [f"{_command(each.pid)} (pid {each.pid})" for each in left]
        await asyncio.sleep(LOOK_SECONDS)


def _read(pid: int) -> tuple[Process, int] | None:
    """The process and its parent's number; None if it has ended, also where nobody has taken note of its end."""
    with suppress(OSError):
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        if fields[0] not in "ZX":
            return Process(pid, fields[19]), int(fields[1])
    return None


def _command(pid: int) -> str:
    with suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_text().replace("\0", " ").strip()
    return "a process"
