"""Read container logs as `kubectl logs` asks for them, from the files that the shim writes.

`wasmlet.worker.supervisor.crilog` writes them. Unlike a kubelet, which shows only the file that is written to, this
reads all of a log's files as one (`files`).
They are read piece by piece in threads, never whole (but for a compressed one that `tail` begins in). A reader that
follows sleeps until the kernel says that the file has grown, is put aside or has a successor (`inotify`), or the shim
that the container has ended; the shim says so only when the log is complete.

What a reader that follows promises:

- It reads every file that it has opened to the end, whatever becomes of the file's name.
- Where a log is rotated faster than it is read, files are removed before the reader has opened them. Their lines are
  missing; the reader goes on with the oldest file that is left. What is missing is always whole files.
- Whenever the writer pauses, the reader gets to the last line that was written, however often the log was rotated.
- It ends when the container has ended and all that is left was read.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import attrs

from wasmlet.concurrency import first_of, in_thread
from wasmlet.errors import NotFound
from wasmlet.provider import LogOptions
from wasmlet.runtime.logs import files as log_files
from wasmlet.runtime.logs.files import Part
from wasmlet.runtime.logs.inotify import Watcher
from wasmlet.runtime.shim.client import ShimClient
from wasmlet.runtime.shim.records import ContainerRecord
from wasmlet.worker import wire

Begin = Callable[[], tuple[Part, int]]
"""Opens a file of a log, and says where in it to begin."""


@attrs.frozen
class Log:
    """The log of one instance of a container.

    Attributes:
        path: of the file that is written to.
        ended: whether that instance has ended, so that nothing will be added.
        wait_ended: returns when it has.
        watcher: of this process.
    """

    path: Path
    ended: Callable[[], bool]
    wait_ended: Callable[[], Awaitable[None]]
    watcher: Watcher

    @classmethod
    def of(cls, client: ShimClient, record: ContainerRecord, state_dir: Path, watcher: Watcher) -> Log:
        """The log of a container of the shim, whose paths are below `state_dir`."""
        name = record.id

        def ended() -> bool:
            known = client.records.get(name)
            return known is None or known.ended

        async def wait_ended() -> None:
            await client.wait(name, wire.ENDED)

        return cls(state_dir / record.log, ended, wait_ended, watcher)


async def read(log: Log, options: LogOptions) -> AsyncGenerator[bytes, None]:
    """The log in pieces, as `options` ask for it.

    Raises:
        NotFound: the log is not there (any more).
    """
    since = _stamp(options.since_time)
    entries, left = Entries(since, options.timestamps), options.limit_bytes
    begin = functools.partial(_begin, log.path, options.tail_lines, since)
    async with contextlib.aclosing(pieces(log, begin, follow=options.follow)) as found:
        async for _, data in found:
            text = entries.feed(data)
            if left is not None:
                text = text[:left]
                left -= len(text)
            if text:
                yield text
            if left == 0:
                return


class _OpenFiles(contextlib.ExitStack):
    """The files of a log that one reader opens, in order; leaving the context closes them.

    A file is closed also where its reader was cancelled while a thread opened it.
    """

    current: Part

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def begin(self, begin: Begin) -> int:
        """Open the first file; the offset in it to begin at. Blocks."""
        part, offset = begin()
        self._take(part)
        return offset

    def next(self) -> bool:
        """Open the file after the current one; whether there is one. Blocks."""
        part = log_files.open_next(self._path, self.current.number)
        if part is not None:
            self._take(part)
        return part is not None

    def _take(self, part: Part) -> None:
        self.current = part
        self.callback(part.close)


async def pieces(log: Log, begin: Begin, *, follow: bool) -> AsyncGenerator[tuple[int, bytes], None]:
    """The entries of a log as they are in its files, in pieces of any size, each with its file's number.

    Args:
        begin: opens the file to begin with and says at which offset; called in a thread.

    Raises:
        NotFound: the log is not there (any more).
    """
    with _OpenFiles(log.path) as files:
        try:
            offset = await in_thread(files.begin, begin)
        except FileNotFoundError:
            raise NotFound(f"the log {log.path.name} of this container is gone") from None
        while True:
            part = files.current
            with log.watcher.watch(part, log.path) if follow else contextlib.nullcontext() as followed:
                while True:
                    last = followed is None or log.ended()  # asked first: what was written before the end is read below
                    if followed is not None:
                        followed.changed.clear()
                    if followed is None or last or part.compressed:
                        data = await in_thread(part.read, offset)
                    else:
                        data = await followed.read(offset)
                    full = not data and not part.is_current(log.path)
                    if full:  # nothing is added from here on, but a shared read may have begun before the last was
                        data = await in_thread(part.read, offset)
                    if data:
                        offset += len(data)
                        yield part.number, data
                    elif full and await in_thread(files.next):
                        break
                    elif followed is None or last:
                        return
                    else:
                        await first_of(followed.changed.wait(), log.wait_ended())
            offset = 0
            part.close()


class Entries:
    """Turns log entries back into what the guest wrote, leaving out those before `since`."""

    def __init__(self, since: bytes, timestamps: bool) -> None:
        self._since = since
        self._timestamps = timestamps
        self._rest = b""
        self._within = False

    def feed(self, data: bytes) -> bytes:
        """The text of the entries that are complete by now."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        out = []
        for line in lines:
            stamp, _, tag, text = fields(line)
            if stamp < self._since:
                continue
            if self._timestamps and not self._within:
                out.append(stamp + b" ")
            out.append(text)
            self._within = tag == b"P"
            if not self._within:
                out.append(b"\n")
        return b"".join(out)


def _begin(path: Path, lines: int | None, since: bytes) -> tuple[Part, int]:
    """The file and the offset in it to read from: of the last so many lines, of those from `since` on; blocks.

    A line is as the guest wrote it, however many entries it takes and in however many files these are. Reads backwards,
    and no more than it needs.

    Raises:
        FileNotFoundError: the log is gone.
    """
    if lines is None and not since:
        return log_files.open_oldest(path), 0
    part = log_files.open_newest(path)
    try:
        count: int | None = None
        while True:
            if lines is None:
                stamp = fields(part.read(0, 64))[0]  # of its first entry; none where the file is empty
                offset = 0 if b"" < stamp < since else None
            else:
                offset, count = tail_offset(part, lines, since, count)
            before = log_files.open_part(path, part.number - 1) if offset is None else None
            if before is None:
                return part, offset or 0
            part.close()
            part = before
    except BaseException:
        part.close()
        raise


def tail_offset(part: Part, lines: int, since: bytes = b"", count: int | None = None) -> tuple[int | None, int | None]:
    """Where in a file the last so many lines begin, or the first entry from `since` on if that is later; blocks.

    Args:
        count: what this returned for the file after this one: lines counted so far; None for the last file.

    Returns:
        The offset, None where they begin in an earlier file; and how many were counted.
    """
    following = part.size
    if lines <= 0:
        return following, count
    for position, line in part.backwards():
        stamp, _, tag, _ = fields(line)
        if stamp < since:
            return following, count
        if tag == b"F" or count is None:
            if count == lines:
                return following, count
            count = (count or 0) + 1
        following = position
    return None, count


def fields(line: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Time, stream, tag and text of an entry; what is no entry is taken as a line of its own, so that it is seen."""
    parts = line.split(b" ", 3)
    if len(parts) == 4:
        return parts[0], parts[1], parts[2], parts[3]
    return b"9", b"stdout", b"F", line


def _stamp(moment: datetime | None) -> bytes:
    """The time in the form that entries have it; they sort as text."""
    if moment is None:
        return b""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode()
