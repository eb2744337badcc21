"""A small collection of the API that is watched as a whole: services, runtime classes.

A node's identity may list these. Watching begins when the first pod needs it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence

import attrs

from wasmlet.clock import Clock, Pacing
from wasmlet.errors import WasmletError
from wasmlet.kube import Client, History, Reflector, Selection
from wasmlet.kube.reflector import Handler
from wasmlet.model.pod import Raw

LOAD_SECONDS = 15.0
"""How long a pod's start waits for what it needs from the API before that counts as a failure, to be repeated."""


@attrs.frozen(kw_only=True)
class Watching:
    """What the watches of a node are made with.

    Attributes:
        client: one that has a connection for each watch.
        requests: a client for all other requests; it has a limited number of connections.
        group: owns a task for each watch.
        history: told of the versions that are seen, so that a restored API server is noticed.
    """

    client: Client
    requests: Client
    group: asyncio.TaskGroup
    clock: Clock
    rng: random.Random
    history: History

    def reflector(self, path: str, selector: Mapping[str, str], handler: Handler) -> Reflector:
        """A reflector of the objects below a path."""
        pacing = Pacing(self.clock, self.rng)
        return Reflector(self.client, Selection(path, selector), handler, pacing=pacing, history=self.history)


class Collection:
    """All objects of one kind, by namespace and name; handler of their reflector."""

    def __init__(self, watching: Watching, path: str) -> None:
        self._watching = watching
        self._path = path
        self._found: dict[str, dict[str, Raw]] = {}
        self._loaded = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Return when a complete list has been seen.

        Raises:
            WasmletError: the API has not given one in time.
        """
        if self._task is None:
            reflector = self._watching.reflector(self._path, {}, self)
            self._task = self._watching.group.create_task(reflector.run())
        if self._loaded.is_set():
            return
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                await self._loaded.wait()
        except TimeoutError:
            raise WasmletError(f"{self._path} could not be read from the API server yet") from None

    def of(self, namespace: str = "") -> Mapping[str, Raw]:
        """The objects of a namespace by name; "" for kinds that have none."""
        return self._found.get(namespace, {})

    def synced(self, items: Sequence[Raw]) -> None:
        self._found = {}
        for item in items:
            self.applied(item)
        self._loaded.set()

    def applied(self, item: Raw) -> None:
        metadata = item["metadata"]
        self._found.setdefault(metadata.get("namespace", ""), {})[metadata["name"]] = item

    def deleted(self, item: Raw) -> None:
        metadata = item["metadata"]
        self._found.get(metadata.get("namespace", ""), {}).pop(metadata["name"], None)
