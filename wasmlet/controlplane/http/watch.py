"""One watch: sends the changes since a version or the present objects, and then each new change, a JSON line each.

`server` opens one for each watch request. The store passes changes to `offer`, which does not wait; `run` sends
together what has gathered. A reader that falls too far behind is disconnected without an error, as an API server does.
It then resumes from the version that it saw last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import orjson

from wasmlet.controlplane.http.forms import Form
from wasmlet.controlplane.storage.selectors import Selector
from wasmlet.controlplane.storage.status import ApiError, Object
from wasmlet.controlplane.storage.store import Collection, Event, Record

PENDING = 10_000
"""How many changes may wait for a reader before it is cut off."""
PENDING_BYTES = 64 * 2**20
"""How many bytes they may have together."""

_HEAD = {
    change: f'{{"type":"{change}","object":'.encode()
    for change in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR")
}
_TAIL = b"}\n"


class Watcher:
    """One watch of one collection: call `open`, and then `run`.

    Args:
        selector: picks the objects that the reader wants.
        form: makes bytes of an object.
        pending: how many changes may wait for the reader before it is cut off.
    """

    def __init__(
        self,
        collection: Collection,
        selector: Selector,
        form: Form,
        *,
        pending: int = PENDING,
    ) -> None:
        self._collection = collection
        self._selector = selector
        self._form = form
        self._limit = 3 * pending
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        """Bytes of the changes that wait. The objects sent at first do not count, as the reader had no time to read
        them."""
        self._wake = asyncio.Event()
        self._ended = False
        self._after = 0

    def offer(self, event: Event) -> None:
        """Take one change, if it concerns this watch."""
        record, old = event.record, event.old
        if self._ended or event.version <= self._after:
            return
        selector = self._selector
        if selector.namespace and record.namespace != selector.namespace:
            return
        if selector.everything:
            self._add(event.change, self._form.one(record))
            return
        was = old is not None and selector.matches(old.raw)
        fits = event.change != "DELETED" and selector.matches(record.raw)
        if fits:
            self._add("MODIFIED" if was else "ADDED", self._form.one(record))
        elif was and old is not None:
            gone = record
            if event.change != "DELETED":
                # The selectors no longer pick it: the reader gets DELETED, with the object it knew at the new version.
                metadata = {**old.raw["metadata"], "resourceVersion": str(event.version)}
                gone = Record({**old.raw, "metadata": metadata}, event.version, old.prefix)
            self._add("DELETED", self._form.one(gone))

    def _add(self, change: str, body: bytes) -> None:
        self._pending += (_HEAD[change], body, _TAIL)
        self._pending_bytes += len(body)
        if len(self._pending) > self._limit or self._pending_bytes > PENDING_BYTES:
            self._ended = True
            self._pending.clear()
        self._wake.set()

    def end(self) -> None:
        """End the watch at once."""
        self._ended = True
        self._wake.set()

    def open(self, *, since: int | None, replay: bool, mark_initial: bool, version: int) -> None:
        """Gather what the reader gets first, and follow the collection from then on.

        Args:
            since: a version to resume after; None for "from now".
            replay: send the present objects as ADDED first.
            mark_initial: end that with a bookmark that says so (`sendInitialEvents`).
            version: the store's version.

        Raises:
            ApiError: 410, the ring no longer reaches back to `since`.
        """
        if since is not None and not replay:
            self._after = since
            for event in self._collection.since(since):
                self.offer(event)
        if replay:
            for record in self._collection.select(self._selector):
                self._pending += (_HEAD["ADDED"], self._form.one(record), _TAIL)
            if mark_initial:
                self.bookmark(version, {"k8s.io/initial-events-end": "true"})
        if self._pending:
            self._wake.set()
        self._collection.followers.add(self)

    def bookmark(self, version: int, annotations: Object | None = None) -> None:
        """Send a bookmark: it says that the reader has got all changes up to this version."""
        meta: Object = {"resourceVersion": str(version), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        self._add("BOOKMARK", self._form.bookmark(meta))

    def fail(self, error: ApiError) -> None:
        """Send an error as the last line."""
        self._pending += (_HEAD["ERROR"], orjson.dumps(error.status), _TAIL)
        self.end()

    async def run(
        self,
        send: Callable[[bytes], Awaitable[None]],
        *,
        seconds: float,
        bookmarks: float | None,
        version: Callable[[], int],
    ) -> None:
        """Send what gathers until `seconds` have passed, `end` was called or the reader fell behind.

        Args:
            send: writes bytes to the reader, and waits while it is slow.
            bookmarks: the pause between bookmarks, in seconds; None for no bookmarks.
            version: gives the store's version.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        mark = loop.time() + bookmarks if bookmarks else None
        try:
            while True:
                if self._pending:
                    lines, self._pending, self._pending_bytes = self._pending, [], 0
                    self._wake.clear()
                    await send(b"".join(lines))
                    continue
                if self._ended:
                    return
                try:
                    async with asyncio.timeout_at(min(deadline, mark) if mark else deadline):
                        await self._wake.wait()
                except TimeoutError:
                    if loop.time() >= deadline:
                        return
                    if bookmarks:
                        self.bookmark(version())
                        mark = loop.time() + bookmarks
        finally:
            self._collection.followers.discard(self)
