"""Writes the agent's journal without blocking: what is asked for while the disk is at work is written together.

What the disk has not taken is written again, with what comes next or after a pause, unless something newer of the same
name was written meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Protocol

import attrs
import structlog

from wasmlet.clock import Backoff, Clock, Retries
from wasmlet.concurrency import in_thread
from wasmlet.failures import described

log = structlog.get_logger(__name__)

_AGAIN = Backoff(initial=1.0, cap=30.0)
"""Pauses between tries to write what could not be written. A new change is tried at once, with the others."""

_STOPPED = OSError("nothing is kept any more: the agent stops")


def _future() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # not everybody asks
    return future


@attrs.define(eq=False)
class Commit:
    """Changes that are written together. Nobody cancels its futures; they fail with an OSError.

    Attributes:
        written: done when the changes outlive this process.
        durable: done when they are on the disk; never done unless somebody asks for that (`Writing.put`).
    """

    written: asyncio.Future[None] = attrs.field(factory=_future)
    durable: asyncio.Future[None] = attrs.field(factory=_future)
    syncs: bool = False
    changes: dict[str, bytes | None] = attrs.field(factory=dict)

    def add(self, newer: Mapping[str, bytes | None]) -> None:
        """Have newer changes written, too, after all that are asked for already."""
        self.without(newer)
        self.changes.update(newer)

    def without(self, names: Iterable[str]) -> None:
        """Write what is asked for, but for these names."""
        for name in names:
            self.changes.pop(name, None)

    def fail(self, error: OSError) -> None:
        """The changes cannot be written."""
        for future in (self.written, self.durable):
            if not future.done():
                future.set_exception(error)


async def settled(future: asyncio.Future[None]) -> None:
    """Wait for a future of a commit; a caller that is cancelled still waits until it is done.

    Raises:
        OSError: the changes cannot be written.
    """
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        raise


class Files(Protocol):
    """What is written: `Journal`."""

    def append(self, changes: Mapping[str, bytes | None]) -> None: ...
    def sync(self) -> None: ...


class Writing:
    """`put` adds a change, and `run` writes. What cannot be written is tried again until it can."""

    def __init__(self, journal: Files, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._next: Commit | None = None
        self._some = asyncio.Event()
        self._under_way: set[Commit] = set()
        self._stopped = False
        self._unsynced: list[Commit] = []
        self._unsynced_some = asyncio.Event()

    def put(self, changes: Mapping[str, bytes | None], *, durable: bool = False) -> Commit:
        """Have records written, by name; None takes one away. A newer change of a name replaces one that waits.

        Args:
            durable: somebody waits until they are on the disk.
        """
        commit = self._upcoming()
        commit.add(changes)
        commit.syncs = commit.syncs or durable
        if self._stopped:
            commit.fail(_STOPPED)
        self._some.set()
        return commit

    async def run(self) -> None:
        """Write until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write())
                group.create_task(self._sync())
        finally:
            self._stopped = True
            for commit in (*self._under_way, self._upcoming()):
                commit.fail(_STOPPED)

    def finish(self) -> None:
        """Write what is left, once `run` has ended. Blocks.

        Raises:
            OSError: it cannot be written.
        """
        if self._next is not None:
            self._journal.append(self._next.changes)
            self._next = None
        self._journal.sync()

    async def _write(self) -> None:
        retries, first = Retries(_AGAIN, self._clock), True
        while True:
            await self._some.wait()
            self._some.clear()
            commit, self._next = self._next, None
            if commit is None:
                continue
            self._under_way.add(commit)
            for waiting in self._under_way - {commit}:  # what they have of the same names is not to be written again
                waiting.without(commit.changes)
            try:
                await in_thread(self._journal.append, commit.changes)
            except asyncio.CancelledError:
                self._put_back(commit)
                raise
            except OSError as error:
                if first:
                    log.warning("the state directory cannot be written, trying again", **described(error))
                first = False
                self._put_back(commit)
                self._under_way.discard(commit)
                commit.fail(error)
                await retries.wait(self._some)
                self._some.set()
            else:
                retries.start_over()
                first = True
                commit.written.set_result(None)
                if commit.syncs:
                    self._unsynced.append(commit)
                    self._unsynced_some.set()
                else:
                    self._under_way.discard(commit)

    def _put_back(self, commit: Commit) -> None:
        """Have the changes of a commit written with the next one."""
        upcoming = self._upcoming()
        commit.add(upcoming.changes)
        upcoming.changes = commit.changes
        upcoming.syncs = upcoming.syncs or commit.syncs

    def _upcoming(self) -> Commit:
        if self._next is None:
            self._next = Commit()
        return self._next

    async def _sync(self) -> None:
        retries, first = Retries(_AGAIN, self._clock), True
        while True:
            await self._unsynced_some.wait()
            self._unsynced_some.clear()
            waiting, self._unsynced = self._unsynced, []
            try:
                await in_thread(self._journal.sync)
            except OSError as error:
                if first:
                    log.warning("the state directory does not reach the disk, trying again", **described(error))
                first = False
                self._under_way.difference_update(waiting)
                for commit in waiting:
                    self._put_back(commit)
                    commit.fail(error)
                await retries.wait(self._unsynced_some)
                if not self._unsynced_some.is_set():  # nothing new was written, with which this is tried again
                    self._some.set()
            else:
                if not first:
                    self._some.set()  # there may be something that was put back
                retries.start_over()
                first = True
                self._under_way.difference_update(waiting)
                for commit in waiting:
                    commit.durable.set_result(None)
