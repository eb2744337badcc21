"""Whether the API server is away, and how those that wait for it learn that it is back.

One `Recovery` is shared by all clients of a node. A request that fails as it does when the API server is away raises a
doubt; the lease keeper (`wasmlet.node.lease`) then looks, and while the API server is away it alone tries each second.
When it is back, everybody who waits between two tries goes on at once and starts over with short pauses. So an outage
costs one request a second, however many pods wait, and nothing waits for the rest of a long pause after its end.

An API server has a connection to etcd for each kind of object, and after an outage of etcd these come back one after
the other, some seconds apart. So the first write of a kind that succeeds in an outage ends all pauses, too: once for
each kind, and without short pauses afterwards. Reviews are no such writes, because they are answered without etcd.

A doubt that turns out to be wrong (one kind of request fails, the rest is well) ends no pause: a request that always
fails is repeated with growing pauses, whatever else succeeds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from wasmlet.clock import Backoff, Clock, Retries

Ended = Callable[[bool, float], None]
"""Told that an outage has ended: whether requests were left without an answer, and when the one that was answered had
begun (monotonic seconds)."""


class Recovery:
    """Knows of one API server whether it is away. All on the event loop; nothing waits but `Pauses`."""

    def __init__(self) -> None:
        self.away = False
        self.era = 0
        """How many outages have ended."""
        self.doubted = asyncio.Event()
        """A request failed as it does when the API server is away; who looks after that clears it."""
        self.ended = asyncio.Event()
        """Set when the present or next outage ends; a new one takes its place then."""
        self.stirred = asyncio.Event()
        """Set when a kind of object is written for the first time in an outage; a new one takes its place then."""
        self._written: set[str] = set()
        self._silent = False
        self._told: list[Ended] = []

    def on_end(self, tell: Ended) -> None:
        """Have `tell` called when an outage ends, before anybody goes on."""
        self._told.append(tell)

    def doubt(self) -> None:
        """A request failed as it does when the API server is away."""
        if not self.away:
            self.doubted.set()

    def lost(self, *, silent: bool = False) -> None:
        """The API server is away; `silent` where it takes requests and gives no answer."""
        self.away = True
        self._silent = self._silent or silent

    def written(self, kind: str) -> None:
        """An object of that kind was written."""
        if self.away and kind not in self._written:
            self._written.add(kind)
            stirred, self.stirred = self.stirred, asyncio.Event()
            stirred.set()

    def found(self, began: float) -> None:
        """A request that began at that monotonic time has succeeded: if there was an outage, it is over."""
        self.doubted.clear()
        if not self.away:
            return
        silent, ended = self._silent, self.ended
        self.away, self._silent, self.ended = False, False, asyncio.Event()
        self.era += 1
        self._written.clear()
        for tell in self._told:
            tell(silent, began)
        ended.set()

    def pauses(self, backoff: Backoff, clock: Clock, rng: random.Random | None = None) -> Pauses:
        """The pauses between the tries of one caller."""
        return Pauses(self, backoff, clock, rng)


class Pauses(Retries):
    """The growing pauses between the tries of one caller, which start over when an outage ends."""

    def __init__(self, recovery: Recovery, backoff: Backoff, clock: Clock, rng: random.Random | None) -> None:
        super().__init__(backoff, clock, rng)
        self._recovery = recovery
        self._era = recovery.era

    def start_over(self) -> None:
        super().start_over()
        self._era = self._recovery.era

    async def wait(self, *events: asyncio.Event, at_least: float = 0.0) -> None:
        if self._era == self._recovery.era:
            await super().wait(self._recovery.ended, self._recovery.stirred, *events, at_least=at_least)
        elif at_least:  # an outage has ended while the last try was under way: no pause but what is asked for
            await self._clock.sleep(at_least)
        if self._era != self._recovery.era:
            self.start_over()
