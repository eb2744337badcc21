"""What can go wrong between a client and the API server, on demand: `ControlPlane.faults`.

    faults = control_plane.faults
    with faults.add(Drop(after=True), verb="patch", path="*/status", user="system:node:n1", count=2) as rule:
        await rule.until(2)                 # two status writes were done, and their clients got no answer
    faults.add(Fail(503), probability=0.1)  # until it is removed, or `clear` is called
    async with faults.outage():             # connections are refused, on the port that comes back
        ...
    state = faults.snapshot()
    await faults.restart(state)             # an API server that was restored from a backup

Without rules, a request costs one comparison more. A request that meets no fault goes on to `http.server`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from fnmatch import fnmatchcase
from functools import partial
from typing import Protocol, Self
from weakref import WeakSet

import attrs
import orjson
from aiohttp import web

from wasmlet.concurrency import cut
from wasmlet.controlplane.http.listener import Listener
from wasmlet.controlplane.http.paths import TRUE, parse
from wasmlet.controlplane.http.server import Server, refusal
from wasmlet.controlplane.storage.status import ApiError
from wasmlet.controlplane.storage.store import State, Store

_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}

Proceed = Callable[[], Awaitable[web.StreamResponse]]


class Effect(Protocol):
    """A fault: it acts instead of, before or after `proceed`, which answers the request."""

    async def apply(self, rule: Rule, request: web.BaseRequest, proceed: Proceed) -> web.StreamResponse: ...


@attrs.frozen
class Fail:
    """Answer with an error and do nothing. A watch gets 410 as an API server sends it: as its only event.

    `retry_after` is in seconds, for the header of that name.
    """

    code: int
    reason: str = ""
    message: str = "a fault of the test"
    retry_after: int | None = None

    async def apply(self, rule: Rule, request: web.BaseRequest, proceed: Proceed) -> web.StreamResponse:
        reason = self.reason or _REASONS.get(self.code, "Unknown")
        error = ApiError(self.code, reason, self.message, retry_after=self.retry_after)
        if self.code == 410 and rule.faults.verb(request) == "watch":
            return await ErrorEvent(410).apply(rule, request, proceed)
        return refusal(error)


@attrs.frozen
class Drop:
    """Break the connection before the request is carried out or, with `after`, after it and before the answer."""

    after: bool = False

    async def apply(self, rule: Rule, request: web.BaseRequest, proceed: Proceed) -> web.StreamResponse:
        if self.after:
            await proceed()
        return await _break(request)


@attrs.frozen
class Delay:
    """Delay the request for some seconds, or until the rule is removed, and then answer it as usual."""

    seconds: float | None = None

    async def apply(self, rule: Rule, request: web.BaseRequest, proceed: Proceed) -> web.StreamResponse:
        try:
            async with asyncio.timeout(self.seconds):
                await rule.removed.wait()
        except TimeoutError:
            pass
        return await proceed()


@attrs.frozen
class Cut:
    """Break the connection of a watch in the middle of a line, after `lines` whole lines."""

    lines: int = 0

    async def apply(self, rule: Rule, request: web.BaseRequest, proceed: Proceed) -> web.StreamResponse:
        return await rule.faults.cutting(request, self.lines, proceed)


@attrs.frozen
class ErrorEvent:
    """Answer a watch with 200 and an ERROR event as its only line, or with a line that is no event at all.

    Args:
        code: of the `Status` in the event.
        line: sent instead of that event.
    """

    code: int = 500
    retry_after: int | None = None
    line: bytes = b""

    async def apply(self, rule: Rule, request: web.BaseRequest, proceed: Proceed) -> web.StreamResponse:
        error = ApiError(
            self.code, _REASONS.get(self.code, "Unknown"), "a fault of the test", retry_after=self.retry_after
        )
        line = self.line or orjson.dumps({"type": "ERROR", "object": error.status})
        return web.Response(body=line + b"\n", content_type="application/json")


@attrs.frozen
class End:
    """End a watch properly, after some seconds in which it sends nothing, or one bookmark.

    Args:
        bookmark: the resourceVersion in the bookmark; None for an empty answer.
    """

    seconds: float = 0.0
    bookmark: int | None = None

    async def apply(self, rule: Rule, request: web.BaseRequest, proceed: Proceed) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if self.bookmark is not None:
            event = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.bookmark)}}}
            await response.write(orjson.dumps(event) + b"\n")
        with suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await rule.removed.wait()
        await response.write_eof()
        return response


@attrs.frozen
class _Silence:
    """No answer, until the outage ends and breaks the connection."""

    async def apply(self, rule: Rule, request: web.BaseRequest, proceed: Proceed) -> web.StreamResponse:
        await rule.removed.wait()
        return await _break(request)


@attrs.define(eq=False)
class Rule:
    """A fault and the requests that it affects; `Faults.add` makes one. As a context manager it ends with it."""

    faults: Faults
    effect: Effect
    verb: str
    path: str
    user: str
    count: int | None
    probability: float
    met: int = 0
    """How many requests it has met."""
    removed: asyncio.Event = attrs.field(factory=asyncio.Event)
    _news: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def until(self, met: int = 1) -> None:
        """Wait until the rule has affected this many requests in all."""
        while self.met < met:
            self._news.clear()
            await self._news.wait()

    def remove(self) -> None:
        """Remove the rule: it affects no more requests, and those that it delays go on."""
        self.faults.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def meets(self, request: web.BaseRequest, user: Callable[[web.BaseRequest], str], rng: random.Random) -> bool:
        """Whether the rule affects this request; if so, it is counted."""
        if self.removed.is_set() or not fnmatchcase(request.path, self.path):
            return False
        if not fnmatchcase(self.faults.verb(request), self.verb):
            return False
        if self.user != "*" and not fnmatchcase(user(request), self.user):
            return False
        if self.probability < 1 and rng.random() >= self.probability:
            return False
        self.met += 1
        self._news.set()
        return True


class Faults:
    """The faults of one control plane. Nothing fails unless a rule says so.

    Args:
        rng: decides for each rule that has a probability; seeded with the control plane's seed.
    """

    def __init__(self, store: Store, rng: random.Random) -> None:
        self._store = store
        self._rng = rng
        self._rules: list[Rule] = []
        self._spent: WeakSet[Rule] = WeakSet()
        self._cuts: dict[int, int] = {}
        self._server: Server | None = None
        self._listener: Listener | None = None

    def attach(self, server: Server, listener: Listener) -> None:
        """Stand between a server and its clients; `ControlPlane` calls this when it starts."""
        self._server, self._listener = server, listener
        server.sender = self._sender

    def verb(self, request: web.BaseRequest) -> str:
        """The verb of a request, as Kubernetes names it.

        One of get, list, watch, create, update, patch, delete and deletecollection; for a path outside of the API, get,
        watch, or the method in small letters.
        """
        target = None
        if request.path.startswith("/api"):
            with contextlib.suppress(ApiError):
                target = parse(self._store.catalog, request.method, request.path, request.query)
        if target is not None:
            return target.verb
        if request.query.get("watch") in TRUE:
            return "watch"
        return "get" if request.method in ("GET", "HEAD") else request.method.lower()

    # -- rules

    def add(
        self,
        effect: Effect,
        *,
        verb: str = "*",
        path: str = "*",
        user: str = "*",
        count: int | None = None,
        probability: float = 1.0,
    ) -> Rule:
        """Add a fault for requests; where several rules match, the oldest comes first.

        Args:
            effect: `Fail`, `Drop`, `Delay`, `Cut`, `ErrorEvent`, `End`, or `lag.Lag`.
            verb: get, list, watch, create, update, patch or delete.
            path: the path of the URL. In `path`, `verb` and `user`, "*" stands for any characters.
            user: the name, as `system:node:n1`.
            count: how many requests it affects before it is removed; None for no limit.
            probability: the probability with which it affects each of them.
        """
        rule = Rule(self, effect, verb, path, user, count, probability)
        self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """Take a rule away, if it is still there."""
        rule.removed.set()
        self._spent.discard(rule)
        if rule in self._rules:
            self._rules.remove(rule)

    def clear(self) -> None:
        """Take all rules away."""
        for rule in (*self._rules, *self._spent):
            self.remove(rule)

    def disconnect(self) -> None:
        """Break every connection there is now, watches too."""
        assert self._listener is not None, "the control plane is not running"
        self._listener.disconnect()

    # -- outages and restarts

    @asynccontextmanager
    async def outage(self, *, silent: bool = False) -> AsyncIterator[None]:
        """Break every connection, and refuse new ones or, with `silent`, accept them and never answer."""
        assert self._listener is not None, "the control plane is not running"
        # A connection whose TLS handshake has begun cannot be broken: its requests are.
        rule = self.add(_Silence() if silent else Drop())
        self._rules.insert(0, self._rules.pop())  # the first to be met
        try:
            if silent:
                self._listener.disconnect()
            else:
                await self._listener.shut()
            yield
        finally:
            rule.remove()
            if not silent:
                await self._listener.reopen()

    def snapshot(self) -> State:
        """All objects and the version, as they are now; for `restart`."""
        return self._store.snapshot()

    async def restart(self, state: State | None = None) -> None:
        """Stop and start: watches end, lists in pages are forgotten, and watches from old versions get 410.

        With a state, the objects and the version are those of that time: what was written since then is lost.
        """
        async with self.outage():
            self.restore(state or self.snapshot())

    def restore(self, state: State) -> None:
        """Put the objects and the version of an earlier time in place; only during an outage."""
        assert self._server is not None, "the control plane is not running"
        self._server.end_watches()
        self._store.restore(state)

    # -- on the way of each request

    def handle(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """Answer a request, with the faults of the rules that match it."""
        assert self._server is not None
        if not self._rules or self._server.closing:
            return self._server.handle(request)
        return self._meet(request, list(self._rules))

    async def _meet(self, request: web.BaseRequest, rules: list[Rule]) -> web.StreamResponse:
        assert self._server is not None
        for at, rule in enumerate(rules):
            if rule.meets(request, self._server.user_name, self._rng):
                if rule.met == rule.count:
                    # It meets no more requests; those that it delays wait until it is removed.
                    self._rules.remove(rule)
                    self._spent.add(rule)
                return await rule.effect.apply(rule, request, partial(self._meet, request, rules[at + 1 :]))
        return await self._server.handle(request)

    async def cutting(self, request: web.BaseRequest, lines: int, proceed: Proceed) -> web.StreamResponse:
        """Answer a request; if it is a watch, its connection breaks after this many lines."""
        self._cuts[id(request)] = lines
        try:
            return await proceed()
        finally:
            del self._cuts[id(request)]

    def _sender(self, request: web.BaseRequest, answer: web.StreamResponse) -> Callable[[bytes], Awaitable[None]]:
        """The function that sends the bytes of a watch; it breaks the connection where `cutting` asks for that."""
        left = self._cuts.get(id(request))
        if left is None:
            return answer.write

        async def send(data: bytes) -> None:
            nonlocal left
            lines = data.splitlines(keepends=True)
            if len(lines) <= left:
                left -= len(lines)
                await answer.write(data)
                return
            await answer.write(b"".join(lines[:left]) + lines[left][: len(lines[left]) // 2])
            await _break(request, flush=True)

        return send


async def _break(request: web.BaseRequest, *, flush: bool = False) -> web.StreamResponse:
    """Break the connection; does not return, because the task that serves the connection is cancelled."""
    if request.transport is not None:
        if flush:
            request.transport.close()
        else:
            cut(request.transport)
    await asyncio.Event().wait()
    raise AssertionError
