"""Events: what `kubectl describe` shows under a pod or a node.

`EventRecorder.record` never waits and never fails: events are sent in the background. An event that repeats raises the
count of the first one. There are two limits. One object may have 25 events at once, and then one every five minutes
(the kubelet's spam filter). A node sends 100 events at once, and then 50 a second (the kubelet's --event-burst and
--event-qps). While the API server is away, the newest 2000 events wait. An event that it refuses for another reason is
dropped, after several tries if another try may help. Where its namespace is being deleted, those that wait for the same
namespace are dropped with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict, deque
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
BURST = 25
REFILL_SECONDS = 300.0
NODE_BURST = 100
PER_SECOND = 50
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


@attrs.frozen
class _Waiting:
    """An event that is to be sent, and when it was."""

    event: _Event
    at: str
    name: str
    """The name of its object, unless it repeats an event. It is the same at each try: no try makes a second object."""


@attrs.define
class _Sent:
    name: str
    count: int


@attrs.define
class _Bucket:
    tokens: float
    filled: float


class EventRecorder:
    """Tells the API server of events, in the background. `run` does the sending."""

    def __init__(self, client: Client, node_name: str, *, clock: Clock | None = None) -> None:
        self._client = client
        self._source = {"component": "wasmlet", "host": node_name}
        self._clock = clock or SystemClock()
        self._queue: deque[_Waiting] = deque(maxlen=QUEUE)
        self._names = EventNames()
        self._wake = asyncio.Event()
        self._sent: OrderedDict[_Event, _Sent] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
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
        if not self._allowed(str(involved.get("uid") or involved.get("name"))):
            return
        text = message.encode()[:MESSAGE_BYTES].decode("utf-8", "ignore")
        namespace = str(involved.get("namespace") or "default")
        reference = tuple(sorted((k, str(v)) for k, v in involved.items() if v))
        moment = self._clock.now()
        name = self._names.next(str(involved.get("name") or "unknown"), moment)
        event = _Event(reference, namespace, type, reason, text)
        self._queue.append(_Waiting(event, rfc3339(moment), name))
        self._wake.set()

    async def run(self) -> None:
        """Send what was recorded, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._paced()
                await self._deliver(self._queue.popleft())

    async def _paced(self) -> None:
        now = self._clock.monotonic()
        self._paid_until = max(self._paid_until, now - NODE_BURST / PER_SECOND) + 1 / PER_SECOND
        if self._paid_until > now:
            await self._clock.sleep(self._paid_until - now)

    async def flush(self, seconds: float) -> None:
        """Send what is still waiting, for at most that long."""
        try:
            async with asyncio.timeout(seconds):
                while self._queue:
                    await self._deliver(self._queue.popleft())
        except TimeoutError:
            log.info("events left unsent", count=len(self._queue))

    def _allowed(self, key: str) -> bool:
        now = self._clock.monotonic()
        bucket = self._buckets.setdefault(key, _Bucket(BURST, now))
        self._buckets.move_to_end(key)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.filled) / REFILL_SECONDS)
        bucket.filled = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    async def _deliver(self, waiting: _Waiting) -> None:
        """Send the event, with as many tries as it takes; dropped where another try would not help."""
        recovery, tries = self._client.recovery, 0
        pauses = recovery.pauses(RETRIES, self._clock)
        while True:
            try:
                await self._send(waiting)
                return
            except errors.ApiError as error:
                tries += not recovery.away
                if tries >= TRIES or not isinstance(error, _PASSING):
                    log.info("event not sent", reason=waiting.event.reason, error=str(error))
                    if _without_namespace(error):
                        self._forget(waiting.event.namespace)
                    return
            await pauses.wait()

    def _forget(self, namespace: str) -> None:
        """Drop what waits for a namespace: with its pods' ends, that may be thousands of events."""
        left = [waiting for waiting in self._queue if waiting.event.namespace != namespace]
        if len(left) < len(self._queue):
            dropped = len(self._queue) - len(left)
            log.info("events not sent: their namespace is being deleted", namespace=namespace, count=dropped)
            self._queue = deque(left, maxlen=QUEUE)

    async def _send(self, waiting: _Waiting) -> None:
        event = waiting.event
        if (known := self._sent.get(event)) is not None:
            try:
                path = f"{paths.events(event.namespace)}/{known.name}"
                body = {"count": known.count + 1, "lastTimestamp": waiting.at}
                await self._client.patch(path, body, STRATEGIC_PATCH)
                known.count += 1
                self._sent.move_to_end(event)
                return
            except errors.ObjectNotFound:
                pass  # the event has expired meanwhile: make another
        body = self._object(event, dict(event.involved), waiting.name, waiting.at)
        with contextlib.suppress(errors.AlreadyExists):  # an earlier try was done, and its answer was lost
            await self._client.create(paths.events(event.namespace), body)
        self._sent[event] = _Sent(waiting.name, 1)
        if len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)

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
