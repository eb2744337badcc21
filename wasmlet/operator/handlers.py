"""Runs kopf: it watches the pools, runs a `Keeper` for each, and keeps a deleted pool until its nodes have ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import aiohttp
import structlog
from multidict import CIMultiDict

from wasmlet.clock import either
from wasmlet.concurrency import first_of
from wasmlet.failures import text_of, traceback_of
from wasmlet.kube import Identity, errors
from wasmlet.kube.connections import opened_session
from wasmlet.model.pod import Raw
from wasmlet.operator.keeper import Keeper
from wasmlet.operator.pool import FINALIZER, GROUP, PLURAL, POOLS, VERSION
from wasmlet.operator.shared import RETRIES, Shared

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def _absent(module: str) -> Iterator[None]:
    """Make imports of the module fail while the context is open, unless it has already been imported."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


# Where kopf finds this library, it imports all of its models (60 MiB) to recognize them. None are used here.
with _absent("kubernetes_asyncio"):
    import kopf

CANCEL_SECONDS = 10.0
EXIT_SECONDS = 1.0
"""How long a keeper that is told to stop has before kopf cancels it, and warns of that."""
WATCH_SECONDS = 1.0
"""The least time between two watches of the same objects; without it a server that ends each at once causes a busy
loop."""


class _Endless:
    """The pauses in seconds between kopf's tries of a request; they never end, so that kopf never gives up."""

    def __iter__(self) -> Iterator[float]:
        yield from (1, 1, 2, 3, 5)
        while True:
            yield 8


class _NothingStored(kopf.DiffBaseStorage):
    """Makes kopf store nothing in the objects. kopf would store what it has handled; `Keeper` does not need that."""

    def fetch(self, *, body: kopf.Body) -> Any:
        return self.build(body=body)

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        return None


def settings() -> kopf.OperatorSettings:
    """kopf's settings."""
    found = kopf.OperatorSettings()
    found.persistence.finalizer = FINALIZER
    found.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    found.persistence.diffbase_storage = _NothingStored()
    found.posting.enabled = False
    found.networking.error_backoffs = _Endless()
    found.networking.request_timeout = 30
    found.watching.reconnect_backoff = WATCH_SECONDS
    found.process.ultimate_exiting_timeout = None
    found.background.instant_exit_timeout = EXIT_SECONDS
    return found


def registry(shared: Shared, identity: Identity) -> kopf.OperatorRegistry:
    """kopf's handlers."""
    found = kopf.OperatorRegistry()
    pools = (GROUP, VERSION, PLURAL)
    pauses, asked = RETRIES.pauses(shared.pacing.rng), False

    @kopf.on.login(registry=found)
    async def login(**_: Any) -> Any:
        nonlocal identity, asked
        if asked:  # kopf asks again at once when credentials are refused, and does not wait
            await shared.pacing.clock.sleep(next(pauses))
        asked = True
        identity = shared.client.identity
        return kopf.AiohttpSession(server=identity.server, aiohttp_session=_session(identity, shared))

    @kopf.on.event(*pools, registry=found)
    async def changed(name: str, type: str, **_: Any) -> None:  # noqa: A002 - kopf's name
        shared.wakes.wake(name)
        if type == "DELETED":
            shared.wakes.forget(name)
            shared.metrics.forget(name)

    @kopf.daemon(*pools, registry=found, cancellation_timeout=CANCEL_SECONDS)
    async def keep(name: str, uid: str, body: kopf.Body, stopped: kopf.DaemonStopped, **_: Any) -> None:
        async def ask() -> Raw:
            return dict(body)

        keeper = Keeper(name, uid, shared, ask, removing=False)
        await first_of(keeper.run(), stopped.wait())

    @kopf.on.delete(*pools, registry=found)
    async def remove(name: str, uid: str, **_: Any) -> None:
        await Keeper(name, uid, shared, lambda: shared.client.get(f"{POOLS}/{name}"), removing=True).run()

    return found


class _Refusals:
    """Says why the API server refuses a request of kopf's, which repeats it without end.

    It says so once, and again when the request was granted meanwhile or is refused with another status.
    """

    def __init__(self) -> None:
        self._said: dict[tuple[str, str, bool], int] = {}
        """The status by method, path, and whether it is a watch."""

    async def note(self, request: aiohttp.ClientRequest, answer: aiohttp.ClientResponse) -> None:
        """Take note of the answer to a request."""
        key = request.method, request.url.path, "watch" in request.url.query
        if answer.status not in (403, 429) and answer.status < 500:
            self._said.pop(key, None)
        elif self._said.get(key) != answer.status:
            self._said[key] = answer.status
            error = errors.from_answer(answer.status, await answer.read())
            log.warning("the API server refuses what the operator needs, trying again", error=str(error))


def _session(identity: Identity, shared: Shared) -> aiohttp.ClientSession:
    """A session for kopf, with the same credentials as all others. It notes when kopf has listed the pools."""
    clock = shared.clock
    watched: dict[str, float] = {}
    refusals = _Refusals()

    async def as_us(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if "watch" in request.url.query:  # kopf opens the next one as soon as one ends
            left = watched.get(request.url.path, float("-inf")) + WATCH_SECONDS - clock.monotonic()
            watched[request.url.path] = clock.monotonic() + max(0.0, left)
            await clock.sleep(max(0.0, left))
        for name, value in (await identity.headers()).items():
            request.headers.add(name, value)
        answer = await handler(request)
        await refusals.note(request, answer)
        if answer.ok and request.url.path.endswith(POOLS):  # behind a proxy the server's URL may have a path
            shared.pulse.listed = True
        return answer

    headers = CIMultiDict({"User-Agent": "wasmlet-operator", "Accept": "application/json"})
    return opened_session(identity.proxy, identity.ssl_context, limit=0, headers=headers, middlewares=(as_us,))


async def serve(shared: Shared, stop: asyncio.Event) -> None:
    """Run kopf until `stop` is set. kopf ends at an error in a watch; then it is started again after a pause."""
    pauses = RETRIES.pauses(shared.rng)
    with _logged():
        while not stop.is_set():
            try:
                name: Any = "wasmlet-operator"  # else kopf makes one of the user's, who has no name in a container
                await kopf.operator(
                    identity=name,
                    registry=registry(shared, shared.client.identity),
                    settings=settings(),
                    clusterwide=True,
                    standalone=True,
                    stop_flag=stop,
                )
            except Exception as error:
                log.warning("pools are no longer followed, beginning again", error=text_of(error))
            else:
                return  # after a signal: kopf has its own signal handlers
            await either(shared.clock, next(pauses), stop)


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """Pass kopf's warnings and errors to structlog while the context is open; its other messages are dropped.

    Those of asyncio are passed, too: kopf leaves tasks that have failed, and asyncio then says so with a traceback.
    """
    loggers, handler = [logging.getLogger(name) for name in ("kopf", "asyncio")], _Forward()
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, known in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.level, logger.propagate = known


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("Request attempt"):
            return  # `_Refusals` has said it, or, where there is no answer, our own watches
        error = record.exc_info[1] if record.exc_info else None
        ours = error is not None and (_is_ours(error) if record.name.startswith("kopf") else not _of_kopf(error))
        more = {"exception": traceback_of(error)} if error is not None and ours else {}
        structlog.get_logger(record.name).log(record.levelno, record.getMessage()[:1000], **more)


def _is_ours(error: BaseException) -> bool:
    """Whether the error passed through `Keeper`. A traceback of kopf's own watches and requests would help nobody."""
    if isinstance(error, OSError | aiohttp.ClientError):
        return False
    return any(frame.f_code.co_filename == _keeper_file() for frame, _ in traceback.walk_tb(error.__traceback__))


def _of_kopf(error: BaseException) -> bool:
    """Whether the error is about a request of kopf's."""
    return isinstance(error, OSError | aiohttp.ClientError) or type(error).__module__.startswith("kopf.")


def _keeper_file() -> str:
    return Keeper.run.__code__.co_filename
