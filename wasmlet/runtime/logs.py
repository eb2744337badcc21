"""Read container logs as `kubectl logs` asks for them, from the files that the shim writes (`wasmlet.worker.crilog`).

Files are read piece by piece in threads, never whole. A reader that follows sleeps until the kernel says that the file
has grown (inotify) or the shim that the container has ended; the shim says so only when the log is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from wasmlet.errors import NotFound
from wasmlet.provider import LogOptions
from wasmlet.runtime.waiting import first_of

CHUNK = 64 * 1024

_IN_MODIFY = 0x2
_IN_IGNORED = 0x8000
_EVENT = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


class Watcher:
    """Tells when files grow: one inotify instance for all readers of this process.

    Raises:
        OSError: the system has no instance to give.
    """

    def __init__(self) -> None:
        self._inotify = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._events: dict[int, list[asyncio.Event]] = {}
        asyncio.get_running_loop().add_reader(self._inotify, self._on_events)

    @contextlib.contextmanager
    def watch(self, path: Path) -> Iterator[asyncio.Event]:
        """An event that is set whenever the file is written to."""
        event = asyncio.Event()
        name = os.fsencode(path)
        watch = _checked(_libc.inotify_add_watch(self._inotify, ctypes.c_char_p(name), ctypes.c_uint32(_IN_MODIFY)))
        self._events.setdefault(watch, []).append(event)
        try:
            yield event
        finally:
            events = self._events.get(watch, [])
            if event in events:
                events.remove(event)
            if watch in self._events and not events:
                del self._events[watch]
                _libc.inotify_rm_watch(self._inotify, watch)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._inotify)
        os.close(self._inotify)
        self._inotify = -1
        for events in self._events.values():
            for event in events:
                event.set()
        self._events.clear()

    def _on_events(self) -> None:
        try:
            data = os.read(self._inotify, CHUNK)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            for event in self._events.get(watch, ()):
                event.set()
            if mask & _IN_IGNORED:
                self._events.pop(watch, None)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"inotify: {os.strerror(number)}")
    return result


async def read(
    path: Path,
    options: LogOptions,
    ended: Callable[[], bool],
    wait_ended: Callable[[], Awaitable[None]],
    watcher: Watcher,
) -> AsyncGenerator[bytes, None]:
    """The log in pieces, as `options` ask for it.

    Args:
        path: of the log file of one instance of a container.
        ended: whether that instance has ended, so that nothing will be added.
        wait_ended: returns when it has.

    Raises:
        NotFound: the file is not there (any more).
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"the log {path.name} of this container is gone") from None
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, file)
        grown = stack.enter_context(watcher.watch(path)) if options.follow else asyncio.Event()
        since = _stamp(options.since_time)
        offset = 0
        if options.tail_lines is not None:
            offset = await asyncio.to_thread(tail_offset, file, options.tail_lines, since)
        entries, left = Entries(since, options.timestamps), options.limit_bytes
        while True:
            last = ended()  # asked before reading: what was written before the end is read below
            grown.clear()
            while True:
                count, text = await asyncio.to_thread(_next, file, offset, entries)
                offset += count
                if left is not None:
                    text = text[:left]
                    left -= len(text)
                if text:
                    yield text
                if left == 0:
                    return
                if not count:
                    break
            if not options.follow or last:
                return
            await first_of(grown.wait(), wait_ended())


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
            stamp, _, tag, text = _fields(line)
            if stamp < self._since:
                continue
            if self._timestamps and not self._within:
                out.append(stamp + b" ")
            out.append(text)
            self._within = tag == b"P"
            if not self._within:
                out.append(b"\n")
        return b"".join(out)


def tail_offset(file: int, lines: int, since: bytes = b"") -> int:
    """Where the last so many lines begin, or the first entry from `since` on if that is later; blocks.

    A line is as the guest wrote it, however many entries it takes. Reads backwards, and no more than it needs.
    """
    end = os.fstat(file).st_size
    if lines <= 0:
        return end
    count, following = 0, end
    for position, line in _backwards(file, end):
        stamp, _, tag, _ = _fields(line)
        if stamp < since:
            return following
        if tag == b"F" or following == end:
            if count == lines:
                return following
            count += 1
        following = position
    return 0


def _backwards(file: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Entries from the last to the first, each with its offset."""
    rest = b""
    while end > 0:
        begin = max(0, end - CHUNK)
        data = os.pread(file, end - begin, begin) + rest
        pieces = data.split(b"\n")
        position = begin + len(data)
        while len(pieces) > 1:
            line = pieces.pop()
            position -= len(line)
            if line:
                yield position, line
            position -= 1
        rest, end = pieces[0], begin
    if rest:
        yield 0, rest


def _next(file: int, offset: int, entries: Entries) -> tuple[int, bytes]:
    data = os.pread(file, CHUNK, offset)
    return len(data), entries.feed(data) if data else b""


def _fields(line: bytes) -> tuple[bytes, bytes, bytes, bytes]:
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
