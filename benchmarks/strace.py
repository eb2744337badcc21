"""What processes ask of the kernel, by strace: `following` writes it to a file, `read` makes it a list of calls.

A call counts for the process that made it. Processes that are there from the beginning have the names that they are
given; those that they fork while they are followed are called `FORKED`. A process that gives itself a name has it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs

from benchmarks.processes import BenchmarkFailed

FORKED = "forked"
"""The role of a process that one of the others has forked, and that has no name of its own."""

FILES_MADE, FILES_REMOVED, RENAMED = "files made", "files removed", "files renamed"
DIRECTORIES_MADE, DIRECTORIES_REMOVED = "directories made", "directories removed"
MEMORY_FILES, MOUNTS = "memory files made", "mounts made and removed"

_EFFECTS = {
    "creat": FILES_MADE,
    "mknod": FILES_MADE,
    "mknodat": FILES_MADE,
    "link": FILES_MADE,
    "linkat": FILES_MADE,
    "symlink": FILES_MADE,
    "symlinkat": FILES_MADE,
    "mkdir": DIRECTORIES_MADE,
    "mkdirat": DIRECTORIES_MADE,
    "unlink": FILES_REMOVED,
    "rmdir": DIRECTORIES_REMOVED,
    "rename": RENAMED,
    "renameat": RENAMED,
    "renameat2": RENAMED,
    "memfd_create": MEMORY_FILES,
    "mount": MOUNTS,
    "move_mount": MOUNTS,
    "umount2": MOUNTS,
}
_LINE = re.compile(r"(\d+) +(\d+\.\d+) (?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)")
_RESULT = re.compile(r"(.*)\) += (-?\d+|0x[0-9a-f]+|\?)(?: .*)?")
_ATTACHED = re.compile(r"Process (\d+) attached")
_NAMED = re.compile(r'PR_SET_NAME, "(.*?)"')
_UNFINISHED = "<unfinished ...>"
_FORKS = frozenset({"clone", "clone3", "fork", "vfork"})
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


@attrs.frozen
class Call:
    """A system call.

    Attributes:
        role: of the process that made it.
        at: when it began, in seconds since 1970.
        effect: what it made or removed in a file system, such as `FILES_MADE`; "" for nothing, and where it failed.
    """

    role: str
    at: float
    name: str
    effect: str = ""


@attrs.define
class _Begun:
    """A call as far as it has been read."""

    pid: int
    at: float
    name: str
    text: str
    result: int | None = None


def available() -> bool:
    """Whether strace is installed."""
    return shutil.which("strace") is not None


@asynccontextmanager
async def following(roles: Mapping[int, str], output: Path) -> AsyncIterator[Mapping[int, str]]:
    """Write all system calls of these processes, and of those that they start, to a file while the context is open.

    Args:
        roles: a name for each process, by its id.

    Yields:
        What `read` needs of them: a name for each of their threads.

    Raises:
        BenchmarkFailed: one of them cannot be followed.
    """
    attach = [word for pid in roles for word in ("-p", str(pid))]
    command = ("strace", "-f", "-ttt", "-o", str(output), *attach)
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    reader: asyncio.Task[bytes] | None = None
    try:
        await _attached(process, set(roles))
        assert process.stderr is not None
        reader = asyncio.create_task(process.stderr.read())  # or it would fill the pipe, and wait
        yield {int(name): role for pid, role in roles.items() for name in os.listdir(f"/proc/{pid}/task")}
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        if reader is not None:
            await reader


async def _attached(process: asyncio.subprocess.Process, left: set[int]) -> None:
    """Return when strace follows all these processes, as it says."""
    assert process.stderr is not None
    said: list[str] = []
    while left:
        if not (line := await process.stderr.readline()):
            raise BenchmarkFailed(f"strace could not follow processes {sorted(left)}: {' '.join(said)}")
        said.append(line.decode().strip())
        if (found := _ATTACHED.search(said[-1])) is not None:
            left.discard(int(found[1]))


def read(output: Path, roles: Mapping[int, str]) -> list[Call]:
    """The calls that `following` has written, in the order in which they began.

    Args:
        roles: what `following` has yielded.
    """
    begun: list[_Begun] = []
    halves: dict[int, _Begun] = {}
    with output.open(errors="replace") as lines:
        for line in lines:
            if (found := _LINE.match(line)) is None:  # a signal, or the end of a process
                continue
            pid, at, resumed, name, rest = found.groups()
            if resumed:
                if (call := halves.pop(int(pid), None)) is None:  # it began before strace did
                    continue
                call.text += rest
            else:
                call = _Begun(int(pid), float(at), name, rest)
                begun.append(call)
                if rest.endswith(_UNFINISHED):
                    call.text = rest.removesuffix(_UNFINISHED)
                    halves[call.pid] = call
                    continue
            if (ended := _RESULT.match(call.text)) is not None:
                call.text = ended[1]
                call.result = None if ended[2] == "?" else _number(ended[2])
    threads, known = dict[int, int](), dict(roles)
    for call in begun:
        if call.name in _FORKS and call.result is not None and call.result > 0:
            if "CLONE_THREAD" in call.text:
                threads[call.result] = call.pid
            else:
                known.setdefault(call.result, FORKED)
    for call in begun:
        if call.name == "prctl" and call.pid not in threads and (named := _NAMED.match(call.text)) is not None:
            known[call.pid] = named[1]

    def role(pid: int) -> str:
        while pid in threads:
            pid = threads[pid]
        return known.get(pid, FORKED)

    return [Call(role(call.pid), call.at, call.name, _effect(call)) for call in begun]


def _number(text: str) -> int:
    """A result as strace writes it: decimal, hexadecimal after `0x`, or octal after a zero, as that of umask."""
    return int(text, 8 if text.startswith("0") and text.isdigit() else 0)


def _effect(call: _Begun) -> str:
    if call.result is None or call.result < 0:
        return ""
    if call.name in ("open", "openat", "openat2"):
        flags = _STRING.sub("", call.text)
        return FILES_MADE if "O_CREAT" in flags or "O_TMPFILE" in flags else ""
    if call.name == "unlinkat":
        return DIRECTORIES_REMOVED if "AT_REMOVEDIR" in _STRING.sub("", call.text) else FILES_REMOVED
    return _EFFECTS.get(call.name, "")
