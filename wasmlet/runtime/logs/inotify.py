"""Tells readers when log files grow or are rotated, and shares what was read between all readers of a file.

There is one inotify instance per process. Readers of one file share a watch, and those at its end share the data that
is read there. So two hundred followers of one log cost little more than one.

The directory of a log is watched, too. A full file is renamed some time before the next file is made (long before, if
the disk is full). Only the directory shows that the next file is there, because the full file does not change any
more.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from wasmlet.runtime.logs.files import CHUNK, Part

_MODIFIED, _MOVED = 0x2, 0x800
_MADE = 0x100 | 0x80
"""Of a directory: a file was created in it, or was renamed into it."""
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_EVENT = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)

_SECONDS_EACH, _MOST_SECONDS = 0.00025, 0.1


class Watcher:
    """All that is followed by this process.

    Raises:
        OSError: the system has no inotify instance to give.
    """

    def __init__(self) -> None:
        self._inotify = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._files: dict[int, _Followed] = {}
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._inotify, self._on_events)

    @contextlib.contextmanager
    def watch(self, part: Part, path: Path) -> Iterator[Followed]:
        """The file of the log at `path`, watched until the block ends.

        After `close` nothing is watched any more: its reader ends with the connection to the shim.

        Raises:
            OSError: the system has no watch to give.
        """
        changed = asyncio.Event()
        name = f"/proc/self/fd/{part.file}"  # the file itself, whatever its name has become
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self._telling(changed, name, _MODIFIED | _MOVED))
            with contextlib.suppress(FileNotFoundError):  # without the directory there is no next file
                stack.enter_context(self._telling(changed, path.parent, _MADE))
            yield Followed(part, file, changed)

    @contextlib.contextmanager
    def _telling(self, event: asyncio.Event, name: str | Path, kinds: int) -> Iterator[_Followed]:
        """Set the event whenever one of these kinds of changes happens to what has that name."""
        if self._inotify < 0:
            yield _Followed()
            return
        watch = _checked(_libc.inotify_add_watch(self._inotify, os.fsencode(name), ctypes.c_uint32(kinds)))
        file = self._files.setdefault(watch, _Followed())
        file.events.append(event)
        try:
            yield file
        finally:
            file.events.remove(event)
            if not file.events and self._files.get(watch) is file:
                del self._files[watch]
                _libc.inotify_rm_watch(self._inotify, watch)

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._inotify)
        os.close(self._inotify)
        self._inotify = -1
        for file in self._files.values():
            file.tell()
        self._files.clear()

    def _on_events(self) -> None:
        try:
            data = os.read(self._inotify, CHUNK)
        except BlockingIOError:
            return
        offset = told = 0
        while offset < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            # Once too many events wait, the kernel drops all further ones: any file may have changed.
            told += sum(file.tell() for file in self._of(watch, mask))
            if mask & _IGNORED:
                self._files.pop(watch, None)
        # The more are woken, the more is collected before they are woken again.
        self._loop.remove_reader(self._inotify)
        self._pause = self._loop.call_later(min(_MOST_SECONDS, told * _SECONDS_EACH), self._go_on)

    def _of(self, watch: int, mask: int) -> list[_Followed]:
        """What an event is about."""
        if mask & _OVERFLOW:
            return list(self._files.values())
        file = self._files.get(watch)
        return [] if file is None else [file]

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._inotify, self._on_events)


class _Followed:
    """What the followers of one file share, or those of the logs in one directory."""

    def __init__(self) -> None:
        self.events: list[asyncio.Event] = []
        self.reads: dict[int, asyncio.Task[bytes]] = {}
        self.last = (0, b"")

    def tell(self) -> int:
        """Tell all followers of a change; how many they are."""
        self.reads.clear()  # reads that began before this change are not shared with readers that come after it
        for event in self.events:
            event.set()
        return len(self.events)

    def done(self, offset: int, task: asyncio.Task[bytes]) -> None:
        if self.reads.get(offset) is task:
            del self.reads[offset]
        if not task.cancelled() and task.exception() is None and task.result() and self.events:
            self.last = offset, task.result()


class Followed:
    """One file as one follower sees it.

    `changed` is set whenever the file is written to or renamed, and whenever a file is made beside it.
    """

    def __init__(self, part: Part, file: _Followed, changed: asyncio.Event) -> None:
        self._part = part
        self._file = file
        self.changed = changed

    async def read(self, offset: int) -> bytes:
        """What begins there, b"" at the end; read once where several ask for the same.

        What was written before `changed` was last set is there; what was written since may not be.
        """
        begin, data = self._file.last
        if begin == offset and data:
            return data
        task = self._file.reads.get(offset)
        if task is None:
            file = os.dup(self._part.file)  # it is read for the others too, and this reader may leave
            task = self._file.reads[offset] = asyncio.create_task(asyncio.to_thread(_read, file, offset))
            task.add_done_callback(functools.partial(self._file.done, offset))
        return await asyncio.shield(task)


def _read(file: int, offset: int) -> bytes:
    try:
        return os.pread(file, CHUNK, offset)
    finally:
        os.close(file)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"inotify: {os.strerror(number)}")
    return result
