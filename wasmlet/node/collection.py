"""A small collection of the API that is watched as a whole: services, runtime classes.

A node's identity may list these. Watching begins when the first pod needs it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence

from wasmlet.clock import Clock
from wasmlet.errors import WasmletError
from wasmlet.kube import Client, History, Reflector
from wasmlet.model.pod import Raw

LOAD_SECONDS = 15.0
"""How long a pod's start waits for what it needs from the API before that counts as a failure, to be repeated."""


class Collection:
    """All objects of one kind, by namespace and name; handler of their reflector."""

    def __init__(
        self,
        client: Client,
        group: asyncio.TaskGroup,
        path: str,
        clock: Clock,
        rng: random.Random,
        history: History,
    ) -> None:
        self._client = client
        self._group = group
        self._path = path
        self._clock = clock
        self._rng = rng
        self._history = history
        self._found: dict[str, dict[str, Raw]] = {}
        self._loaded = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Return when a complete list has been seen.

        Raises:
            WasmletError: the API has not given one in time.
        """
        if self._task is None:
            reflector = Reflector(
                self._client, self._path, {}, self, clock=self._clock, rng=self._rng, history=self._history
            )
            self._task = self._group.create_task(reflector.run())
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
