"""What the node's API asks the API server: whose is this token (TokenReview), may they do that (SubjectAccessReview).

An answer is cached for as long as a kubelet caches it, and at most `KEPT` answers are. Requests that ask the same
question at the same time share one review. A token itself is never cached: the cache has a hash of it, made with a
secret of this process. A question that is not answered raises `Unanswered`, and nothing is cached.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import attrs
import orjson
import structlog

from wasmlet.clock import Clock
from wasmlet.errors import WasmletError
from wasmlet.kube import Client, errors

log = structlog.get_logger(__name__)

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

TOKEN_SECONDS = 120.0
ALLOWED_SECONDS = 300.0
DENIED_SECONDS = 30.0
"""How long answers are kept: a kubelet's defaults of `authentication.webhook` and `authorization.webhook`."""
KEPT = 4096
REVIEW_SECONDS = 10.0
AT_ONCE = 8
"""How many reviews run at a time. Without a limit, many strangers would leave the node no connections for its work."""
WAITING = 512
"""How many reviews may be under way or wait for their turn; more are not asked, and so refused."""
COMPLAINT_SECONDS = 10.0
"""The least time between two lines in the log about requests that were refused: anybody can make any number of them."""

T = TypeVar("T")


class Unanswered(WasmletError):
    """A review failed or took too long; the caller is refused."""


@attrs.frozen
class User:
    """Who makes a request."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@attrs.frozen
class _Kept(Generic[T]):
    value: T
    until: float


class _Answers(Generic[T]):
    """Answers to one kind of question, by the hash of the question."""

    def __init__(self, what: str, clock: Clock, seconds: float) -> None:
        self._what = what
        self._clock = clock
        self._seconds = seconds
        self._kept: OrderedDict[bytes, _Kept[T]] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Task[T]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._complained = float("-inf")
        self._forbidden = False

    async def get(self, key: bytes, ask: Callable[[], Awaitable[tuple[T, float]]]) -> T:
        """The answer that is known, or that `ask` gives with the seconds to keep it.

        Raises:
            Unanswered: there is none.
        """
        kept = self._kept.get(key)
        if kept is not None and kept.until > self._clock.monotonic():
            self._kept.move_to_end(key)
            return kept.value
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= WAITING:
                raise self._unanswered(f"{WAITING} of them are under way")
            task = self._under_way[key] = asyncio.create_task(self._ask(key, ask), name=self._what)
            task.add_done_callback(lambda done: self._done(key, done))
        # A client that leaves must not take the answer from the others that wait for it.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, Unanswered):
                await task

    def _done(self, key: bytes, task: asyncio.Task[T]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # read, also where everybody who asked has left

    async def _ask(self, key: bytes, ask: Callable[[], Awaitable[tuple[T, float]]]) -> T:
        try:
            async with asyncio.timeout(self._seconds), self._turns:
                value, seconds = await ask()
        except TimeoutError:
            raise self._unanswered(f"no answer within {self._seconds:g} s") from None
        except errors.Forbidden:
            self._say_forbidden()
            raise Unanswered(f"{self._what}: forbidden") from None
        except errors.ApiError as error:
            # The server's own words are left out: some servers quote what they were asked.
            why = f"{error.status} {error.reason}" if error.status else str(error)
            raise self._unanswered(why.strip()) from None
        self._kept[key] = _Kept(value, self._clock.monotonic() + seconds)
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return value

    def _unanswered(self, why: str) -> Unanswered:
        now = self._clock.monotonic()
        if now - self._complained >= COMPLAINT_SECONDS:  # one line for many requests
            self._complained = now
            log.warning("a request to the node's API is refused: a review failed", review=self._what, error=why)
        return Unanswered(f"{self._what}: {why}")

    def _say_forbidden(self) -> None:
        if not self._forbidden:
            self._forbidden = True
            log.error(
                f"the node's identity may not create {self._what}s, so nobody can use the node's API that needs one; "
                "give it a node's certificate (group system:nodes), or bind it to ClusterRole system:auth-delegator"
            )


class Reviews:
    """Asks the API server.

    Args:
        client: with the node's identity.
        seconds: how long a review may take, its wait for a turn included.
    """

    def __init__(self, client: Client, clock: Clock, *, seconds: float = REVIEW_SECONDS) -> None:
        self._client = client
        self._secret = secrets.token_bytes(32)
        self._tokens: _Answers[User | None] = _Answers("TokenReview", clock, seconds)
        self._access: _Answers[bool] = _Answers("SubjectAccessReview", clock, seconds)

    async def close(self) -> None:
        """End what is under way."""
        await self._tokens.close()
        await self._access.close()

    async def user(self, token: str) -> User | None:
        """The user of this token; None where it is no user's.

        Raises:
            Unanswered: the API server did not say.
        """

        async def ask() -> tuple[User | None, float]:
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
            return _user(await self._client.create(TOKEN_REVIEWS, body)), TOKEN_SECONDS

        return await self._tokens.get(self._digest(token.encode()), ask)

    async def allowed(self, user: User, verb: str, node: str, subresource: str) -> bool:
        """Whether the user may do that to `nodes/SUBRESOURCE` of this node.

        Raises:
            Unanswered: the API server did not say.
        """
        spec: dict[str, Any] = {
            "user": user.name,
            "groups": list(user.groups),
            "resourceAttributes": {
                "verb": verb,
                "version": "v1",
                "resource": "nodes",
                "subresource": subresource,
                "name": node,
            },
        }
        if user.uid:
            spec["uid"] = user.uid
        if user.extra:
            spec["extra"] = {key: list(values) for key, values in user.extra}
        body = orjson.dumps({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec})

        async def ask() -> tuple[bool, float]:
            status = (await self._client.request("POST", ACCESS_REVIEWS, body=body)).get("status")
            allowed = isinstance(status, dict) and status.get("allowed") is True and not status.get("denied")
            return allowed, ALLOWED_SECONDS if allowed else DENIED_SECONDS

        return await self._access.get(self._digest(body), ask)

    def _digest(self, data: bytes) -> bytes:
        return hmac.digest(self._secret, data, hashlib.sha256().name)


def _user(review: dict[str, Any]) -> User | None:
    """The user of a TokenReview that was answered."""
    status = review.get("status")
    if not isinstance(status, dict) or status.get("authenticated") is not True:
        return None
    user = status.get("user")
    if not isinstance(user, dict) or not isinstance(name := user.get("username"), str) or not name:
        return None
    extra = user.get("extra") or {}
    return User(
        name,
        tuple(map(str, user.get("groups") or ())),
        str(user.get("uid") or ""),
        tuple(sorted((str(key), tuple(map(str, values or ()))) for key, values in extra.items())),
    )
