"""A watch that never loses anything: list, watch, resume, and list again only when it must.

`Reflector.run` tells a handler about every object of a collection. The API server ends watches as it pleases
(time-outs, readers that fell behind), so a watch is resumed from the last version that was seen, bookmarks included. A
new list is needed in two cases only. One is the answer 410 Gone. The other is an API server that was restored from a
backup, so that its versions have gone back: a watch from a version that it has not reached yet would stay silent. What
fails is repeated without end, with growing pauses (`wasmlet.clock.Retries`), and so is a watch that ends at once
without an event.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs
import orjson
import structlog

from wasmlet.clock import Pacing
from wasmlet.kube import errors
from wasmlet.kube.client import Client
from wasmlet.kube.wire import BUFFER_BYTES

log = structlog.get_logger(__name__)

PAGE = "500"
LINE_BYTES = 16 * 2**20
"""The longest event that is read: well over what the API server stores in one object."""
WATCH_SECONDS = (300, 600)
"""The server is asked to end a watch after a time in this range, so that a silently dead one cannot last."""


class Handler(Protocol):
    """Told of every object, which is the handler's to keep; called on the event loop, expected to return at once."""

    def synced(self, items: Sequence[dict[str, Any]]) -> None:
        """A complete list: what is not in it does not exist. Called at first, and when a watch cannot be resumed."""
        ...

    def applied(self, item: dict[str, Any]) -> None:
        """The object was added or changed."""
        ...

    def deleted(self, item: dict[str, Any]) -> None:
        """The object is gone; `item` is how it last looked."""
        ...


class History:
    """What the reflectors of one node share: whether the API server's versions still go on from those that they saw.

    Versions are numbers that grow, and all kinds of objects share one counter (KEP-5504, and etcd's revisions). When an
    API server was restored from a backup and written to since, it may have passed the version that one reflector knows,
    and not yet that of another. So the server has to have reached the newest version that the node has seen, in a watch
    or in the answer to its own write. The first reflector that finds that it has not tells all, and all list again.
    """

    def __init__(self) -> None:
        self.newest = 0
        """The newest version that there has been."""
        self._reflectors: weakref.WeakSet[Reflector] = weakref.WeakSet()
        self._told: list[Callable[[], None]] = []

    def on_rewound(self, tell: Callable[[], None]) -> None:
        """Have `tell` called when versions have gone back, before any handler gets a list of the restored objects."""
        self._told.append(tell)

    def add(self, reflector: Reflector) -> None:
        """Tell this reflector, too, for as long as it exists."""
        self._reflectors.add(reflector)

    def seen(self, version: str) -> None:
        """The API server has reached this version."""
        if version.isdecimal():
            self.newest = max(self.newest, int(version))

    async def check(self, client: Client, path: str, params: Mapping[str, str], version: str | None = None) -> None:
        """Check that the API server has reached the newest version that this node has seen.

        Args:
            path, params: the collection that is asked for, and its selectors.
            version: is checked instead if the node has seen none.

        Raises:
            Gone: it has not; versions have gone back.
            ApiError: it does not say.
        """
        if not (newest := str(self.newest or version or "")):
            return
        asked = {"resourceVersion": newest, "resourceVersionMatch": "NotOlderThan", "limit": "1"}
        try:
            await client.get(path, **params, **asked)
        except errors.ServerError as error:
            causes = error.details.get("causes") or ()
            if not any(isinstance(c, dict) and c.get("reason") == "ResourceVersionTooLarge" for c in causes):
                raise
            # A cache may only be behind: that of an API server whose etcd is away cannot learn of versions of others.
            await self.compare(client, path, params, newest)

    async def compare(self, client: Client, path: str, params: Mapping[str, str], newest: str | None = None) -> None:
        """Compare the newest version that there has been with that of etcd: the API server has to read from there.

        Raises:
            Gone: versions have gone back.
            ApiError: the API server does not say.
        """
        known = str(newest or self.newest)
        page = await client.get(path, **params, limit="1")
        found = str((page.get("metadata") or {}).get("resourceVersion") or "")
        if found.isdecimal() and known.isdecimal() and int(found) < int(known):
            self.rewound()
            raise errors.Gone(410, "Expired", f"version {known} has never been: the newest is {found}")

    def rewound(self) -> None:
        """Versions have gone back."""
        self.newest = 0
        for tell in self._told:
            tell()
        for reflector in list(self._reflectors):
            reflector.relist()


@attrs.frozen
class Selection:
    """The objects that are asked for.

    Attributes:
        path: the collection, as `/api/v1/pods`.
        params: selectors, as `{"fieldSelector": "spec.nodeName=n1"}`.
    """

    path: str
    params: Mapping[str, str] = attrs.field(factory=dict)


class Reflector:
    """Keeps a handler in step with one collection of the API.

    Args:
        pacing: its pauses are those between tries while the API server does not answer.
        history: told when the API server's versions have gone back, and tells when another reflector saw it.
        fatal: errors that end `run` instead of being repeated.
    """

    def __init__(
        self,
        client: Client,
        selection: Selection,
        handler: Handler,
        *,
        pacing: Pacing | None = None,
        history: History | None = None,
        fatal: tuple[type[errors.ApiError], ...] = (),
    ) -> None:
        self._client = client
        self._path = selection.path
        self._params = dict(selection.params)
        self._handler = handler
        pacing = pacing or Pacing()
        self._rng = pacing.rng
        self._retries = client.recovery.pauses(pacing.backoff, pacing.clock, pacing.rng)
        self._fatal = fatal
        self._history = history or History()
        self._history.add(self)
        self._following: asyncio.Timeout | None = None
        self._stale = False
        """The version is of no use any more."""
        self._version: str | None = None
        self._fresh = False
        """The version was given by a list, and no watch has ended since."""
        self._lists = 0
        self._trouble = ""
        """What the last try failed with."""

    @property
    def lists(self) -> int:
        """How many complete lists have been taken."""
        return self._lists

    def relist(self) -> None:
        """List everything again, now; called on the event loop."""
        self._stale = True
        if self._following is not None:
            self._following.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Follow the collection until cancelled.

        Raises:
            ApiError: one of those that are `fatal`.
        """
        while True:
            wait, failed = 0.0, True
            self._retries.begin()
            try:
                async with asyncio.timeout(None) as self._following:
                    await self._follow()
                failed = False
            except TimeoutError:  # nothing but `relist` sets one
                log.info("watch: versions have gone back, listing again", path=self._path)
            except self._fatal:
                raise
            except errors.Gone as error:
                log.info("watch: the version is too old, listing again", path=self._path, error=str(error))
                self._version = None
            except errors.ApiError as error:
                # The same again is not news: in an outage of an hour each watch would say it a hundred times.
                say = log.debug if repr(error) == self._trouble else log.warning
                self._trouble = repr(error)
                say("watch: failed, trying again", path=self._path, error=str(error))
                wait = error.retry_after
            finally:
                self._following = None
            # Also after a watch that ended without an error: a server may end each of them at once.
            if failed or not self._retries.steady:
                await self._retries.wait(at_least=wait)
            else:
                self._retries.start_over()

    async def _follow(self) -> None:
        if self._stale:
            self._stale, self._version = False, None
        if self._version is None:
            await self._list()
        if not self._fresh:
            await self._history.check(self._client, self._path, self._params, self._version)
        self._fresh = False
        await self._watch()

    async def _list(self) -> None:
        items: list[dict[str, Any]] = []
        params = self._params | {"limit": PAGE}
        while True:
            page = await self._client.get(self._path, **params)
            found, metadata = page.get("items") or [], page.get("metadata")
            if not isinstance(found, list) or not isinstance(metadata, dict) or not metadata.get("resourceVersion"):
                # What is not known to be a list must not be taken for an empty one.
                raise errors.ServerError(500, "", f"{self._path}: expected a list with a resourceVersion, found none")
            # Items of a list carry no kind of their own; those of a watch do, and handlers should not care.
            items += found
            if not (more := metadata.get("continue")):
                break
            if not found:
                raise errors.ServerError(500, "", f"{self._path}: a page of the list is empty and not the last")
            params["continue"] = more
        self._version, self._fresh = str(metadata["resourceVersion"]), True
        self._history.seen(self._version)
        self._lists += 1
        self._handler.synced(items)

    async def _watch(self) -> None:
        assert self._version is not None
        seconds = self._rng.randint(*WATCH_SECONDS)
        params = self._params | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
        }
        async with self._client.stream(self._path, params, silence=seconds + 30) as content:
            rest, self._trouble = b"", ""
            while chunk := await content.read(BUFFER_BYTES):
                lines = chunk.split(b"\n")
                lines[0] = rest + lines[0]
                rest = lines.pop()
                for line in lines:
                    if line:
                        self._event(line)
                if len(rest) > LINE_BYTES:
                    raise errors.ServerError(500, "", f"watch of {self._path}: an event of over {LINE_BYTES} bytes")
            if rest.strip():
                raise errors.Unreachable(f"watch of {self._path}: the connection ended within an event")

    def _event(self, line: bytes) -> None:
        try:
            event = orjson.loads(line)
            kind, item = event["type"], event["object"]
        except (ValueError, KeyError, TypeError):
            raise errors.ServerError(500, "", f"watch of {self._path}: not an event: {line[:80]!r}") from None
        if kind == "ERROR":
            raise errors.from_status(item)
        version = _version(item)
        if kind == "DELETED":
            self._handler.deleted(item)
        elif kind in ("ADDED", "MODIFIED"):
            self._handler.applied(item)
        if kind != "BOOKMARK" and version != self._version:
            # Neither a list nor a bookmark is progress, nor what was told before: a server that ends its watches at
            # once gives these each time.
            self._retries.start_over()
        self._version = version
        self._history.seen(version)


def _version(item: Any) -> str:
    version = (item.get("metadata") or {}).get("resourceVersion") if isinstance(item, dict) else None
    if not version:
        raise errors.ServerError(500, "", "watch: an object without a resourceVersion")
    return str(version)


def later(version: str, than: str) -> bool:
    """Whether a resourceVersion is the later one; they are numbers that grow (KEP-5504)."""
    try:
        return int(version) > int(than)
    except ValueError:
        return True
