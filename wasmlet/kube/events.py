"""Events: what `kubectl describe` shows under a pod or a node.

`EventRecorder.record` never waits and never fails: events are sent in the background. An event that repeats raises the
count of the first one. There are two limits. One object may have 25 events at once, and then one every five minutes
(the kubelet's spam filter). A node sends 100 events at once, and then 50 a second (the kubelet's --event-burst and
--event-qps). While much else is to be written, events wait for some seconds. While the API server is away, the newest
2000 wait. An event that it refuses for another reason is dropped, after several tries if another try may help. Where
its namespace is being deleted, those that wait for the same namespace are dropped with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import attrs
import structlog

from wasmlet.clock import Backoff, Clock, SystemClock
from wasmlet.kube import errors, paths
from wasmlet.kube.client import STRATEGIC_PATCH, Client
from wasmlet.model.event_names import EventNames
from wasmlet.model.pod import Raw
from wasmlet.model.times import rfc3339

log = structlog.get_logger(__name__)

QUEUE = 2000
REMEMBERED = 4096
"""Of so many objects the newest events are remembered."""
BURST = 25
REFILL_SECONDS = 300.0
NODE_BURST = 100
PER_SECOND = 50
MOST_DEFERRED_SECONDS, LOOK_SECONDS = 10.0, 0.1
"""How long an event waits at most while the node is busy, and how often that is looked at."""
RETRIES = Backoff(initial=0.5, cap=10, jitter=0.5)
TRIES = 12
"""How often an event is tried while the API server is there (client-go's number); an outage does not count."""
_PASSING = (errors.Unreachable, errors.ServerError, errors.Unauthorized, errors.TooManyRequests)
MESSAGE_BYTES = 1024
"""The API server refuses longer messages."""
_TERMINATING = "NamespaceTerminating"
"""The cause that it names where a namespace is being deleted."""


@attrs.frozen
class _Event:
    involved: tuple[tuple[str, str], ...]
    namespace: str
    type: str
    reason: str
    message: str


@attrs.frozen(eq=False)
class _Waiting:
    """An event as it was recorded. It gets the API's form when it is sent: in a burst, many are dropped before that.

    Attributes:
        about: the object's UID, or its name where it has none.
        at: when it happened.
        since: the monotonic time at which it was recorded.
    """

    about: str
    involved: Raw
    type: str
    reason: str
    message: str
    at: datetime
    since: float

    @property
    def namespace(self) -> str:
        return str(self.involved.get("namespace") or "default")

    def event(self) -> _Event:
        text = self.message.encode(errors="replace")[:MESSAGE_BYTES].decode("utf-8", "ignore")
        reference = tuple(sorted((k, str(v)) for k, v in self.involved.items() if v))
        return _Event(reference, self.namespace, self.type, self.reason, text)


@attrs.frozen
class _Ready:
    """An event that is being sent.

    Attributes:
        about: see `_Waiting`.
        at: when it happened, as the API has it.
        name: of its object, unless it repeats an event. It is the same at each try: no try makes a second object.
    """

    event: _Event
    about: str
    at: str
    name: str


@attrs.define
class _Sent:
    """An event that was sent.

    Attributes:
        event: its hash. A node remembers some thousands of events, and an event takes ten times the memory.
    """

    event: int
    name: str
    count: int


@attrs.define
class _Known:
    """What is remembered of an object that events are about.

    Attributes:
        tokens, filled: how many events it had left at that monotonic time.
        sent: the newest ones.
        waiting: how many are not sent yet.
        gone: nothing more will be recorded of it.
    """

    tokens: float
    filled: float
    sent: tuple[_Sent, ...] = ()
    waiting: int = 0
    gone: bool = False


class EventRecorder:
    """Tells the API server of events, in the background. `run` does the sending.

    Args:
        busy: says whether much else is to be written: then events wait, each for `MOST_DEFERRED_SECONDS` at most.
    """

    def __init__(
        self, client: Client, node_name: str, *, clock: Clock | None = None, busy: Callable[[], bool] = lambda: False
    ) -> None:
        self._client = client
        self._busy = busy
        self._source = {"component": "wasmlet", "host": node_name}
        self._clock = clock or SystemClock()
        self._queue: deque[_Waiting] = deque()
        self._names = EventNames()
        self._wake = asyncio.Event()
        self._sending = asyncio.Lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._paid_until = -math.inf
        """The monotonic time up to which the events that were sent use up the node's rate."""

    def record(
        self,
        involved: Raw,
        reason: str,
        message: str,
        type: Literal["Normal", "Warning"] = "Normal",  # noqa: A002 - the API's name
    ) -> None:
        """Note that something happened to an object.

        Args:
            involved: the `ObjectReference` (kind, namespace, name, uid, apiVersion, perhaps fieldPath).
            reason: one word, as `Started`.
        """
        about = str(involved.get("uid") or involved.get("name"))
        known = self._known_of(about)
        if known.tokens < 1:
            return
        known.tokens -= 1
        known.waiting += 1
        if len(self._queue) == QUEUE:
            self._done(self._queue.popleft().about)
        moment, now = self._clock.now(), self._clock.monotonic()
        self._queue.append(_Waiting(about, involved, type, reason, message[:MESSAGE_BYTES], moment, now))
        self._wake.set()

    def forget(self, uid: str) -> None:
        """The object is gone: what is remembered of it is dropped once all its events are sent."""
        if (known := self._known.get(uid)) is not None:
            known.gone = True
            self._drop_if_over(uid, known)

    async def run(self) -> None:
        """Send what was recorded, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._paced()
                await self._deferred()
                await self._send_next()

    async def _send_next(self) -> None:
        """Send the first that waits, if `flush` has not done so meanwhile."""
        async with self._sending:
            if self._queue:
                await self._deliver(self._queue.popleft())

    async def _deferred(self) -> None:
        """Let statuses go before: controllers act on these, and events are only read."""
        while self._queue and self._busy() and self._clock.monotonic() < self._queue[0].since + MOST_DEFERRED_SECONDS:
            await self._clock.sleep(LOOK_SECONDS)

    async def _paced(self) -> None:
        now = self._clock.monotonic()
        self._paid_until = max(self._paid_until, now - NODE_BURST / PER_SECOND) + 1 / PER_SECOND
        if self._paid_until > now:
            await self._clock.sleep(self._paid_until - now)

    async def flush(self, seconds: float) -> None:
        """Send what is still waiting, for at most that long; also what `run` is sending has arrived then."""
        try:
            async with asyncio.timeout(seconds):
                while self._queue or self._sending.locked():
                    await self._send_next()
        except TimeoutError:
            log.info("events left unsent", count=len(self._queue))

    def _known_of(self, about: str) -> _Known:
        """What is remembered of the object, with the events that it may have now."""
        now = self._clock.monotonic()
        if (known := self._known.get(about)) is None:
            known = self._known[about] = _Known(BURST, now)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(about)
        known.tokens = min(BURST, known.tokens + (now - known.filled) / REFILL_SECONDS)
        known.filled = now
        return known

    def _done(self, about: str) -> None:
        """An event about this object is sent, or dropped."""
        if (known := self._known.get(about)) is not None:
            known.waiting -= 1
            self._drop_if_over(about, known)

    def _drop_if_over(self, about: str, known: _Known) -> None:
        if known.gone and known.waiting <= 0:
            del self._known[about]

    async def _deliver(self, waiting: _Waiting) -> None:
        """Send the event, and have done with it."""
        try:
            name = self._names.next(str(waiting.involved.get("name") or "unknown"), waiting.at)
            await self._try(_Ready(waiting.event(), waiting.about, rfc3339(waiting.at), name))
        finally:
            self._done(waiting.about)

    async def _try(self, ready: _Ready) -> None:
        """Send the event, with as many tries as it takes; dropped where another try would not help."""
        recovery, tries = self._client.recovery, 0
        pauses = recovery.pauses(RETRIES, self._clock)
        while True:
            try:
                await self._send(ready)
                return
            except errors.ApiError as error:
                tries += not recovery.away
                if tries >= TRIES or not isinstance(error, _PASSING):
                    log.info("event not sent", reason=ready.event.reason, error=str(error))
                    if _without_namespace(error):
                        self._forget(ready.event.namespace)
                    return
            await pauses.wait()

    def _forget(self, namespace: str) -> None:
        """Drop what waits for a namespace: with its pods' ends, that may be thousands of events."""
        dropped = [waiting for waiting in self._queue if waiting.namespace == namespace]
        if dropped:
            log.info("events not sent: their namespace is being deleted", namespace=namespace, count=len(dropped))
            self._queue = deque(waiting for waiting in self._queue if waiting.namespace != namespace)
            for waiting in dropped:
                self._done(waiting.about)

    async def _send(self, ready: _Ready) -> None:
        event = ready.event
        known = self._known.get(ready.about) or _Known(0, 0)  # or it was displaced by others
        before = next((sent for sent in known.sent if sent.event == hash(event)), None)
        others = tuple(sent for sent in known.sent if sent is not before)
        if before is not None:
            try:
                path = f"{paths.events(event.namespace)}/{before.name}"
                body = {"count": before.count + 1, "lastTimestamp": ready.at}
                await self._client.patch(path, body, STRATEGIC_PATCH)
                before.count += 1
                known.sent = (*others, before)
                return
            except errors.ObjectNotFound:
                pass  # the event has expired meanwhile: make another
        body = self._object(event, dict(event.involved), ready.name, ready.at)
        with contextlib.suppress(errors.AlreadyExists):  # an earlier try was done, and its answer was lost
            await self._client.create(paths.events(event.namespace), body)
        known.sent = (*others, _Sent(hash(event), ready.name, 1))[-BURST:]

    def _object(self, event: _Event, involved: dict[str, str], name: str, now: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": event.namespace},
            "involvedObject": involved,
            "reason": event.reason,
            "message": event.message,
            "type": event.type,
            "source": self._source,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "reportingComponent": "wasmlet",
            "reportingInstance": self._source["host"],
        }


def _without_namespace(error: errors.ApiError) -> bool:
    """Whether an event was refused because its namespace is being deleted, or is gone."""
    return isinstance(error, errors.ObjectNotFound) or error.caused_by(_TERMINATING)
