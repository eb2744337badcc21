"""Service-account tokens for pods: asked for, bound to the pod, and asked for again well before they end.

A pod's projected volumes say which tokens it needs. Each is bound to the pod by UID, so that it is worth nothing once
the pod is gone, and is refreshed at 80 % of its life or after 24 hours, whichever is sooner, with jitter (the kubelet's
token manager). Tokens stay in memory; they are never logged.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import structlog

from wasmlet.clock import Backoff, Clock
from wasmlet.errors import WasmletError
from wasmlet.kube import Client, errors, paths
from wasmlet.model.inputs import TokenKey
from wasmlet.model.pod import Pod
from wasmlet.model.times import parse

log = structlog.get_logger(__name__)

RETRIES = Backoff(initial=1, cap=60, jitter=0.5)
"""Between the tries of a refresh."""

LAG = Backoff(initial=0.1, cap=2, jitter=0.5)
LAG_SECONDS = 10.0
"""For how long a pod's first tokens are asked for again where the API server refuses them. Its Node authorizer and its
admission plugin NodeRestriction learn of pods from watches of their own, which may be behind that of the node."""

LIFE_SHARE = 0.8
LONGEST_SECONDS = 24 * 3600.0
JITTER_SECONDS = 10.0
LEAST_SECONDS = 60.0
"""A token is kept at least so long, however soon it seems to end: no API server gives one for less than 10 minutes."""


@attrs.define
class _Held:
    """The tokens of one pod and the task that keeps them fresh."""

    wanted: frozenset[TokenKey]
    tokens: dict[TokenKey, str]
    task: asyncio.Task[None]


class TokenManager:
    """The tokens of all pods of the node.

    Args:
        changed: called with the UID of a pod that has new tokens.
    """

    def __init__(
        self,
        client: Client,
        group: asyncio.TaskGroup,
        changed: Callable[[str], None],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._client = client
        self._group = group
        self._changed = changed
        self._clock = clock
        self._rng = rng
        self._held: dict[str, _Held] = {}
        self._refused: set[str] = set()
        """UIDs of the pods whose tokens were refused for longer than the API server can be behind."""

    async def tokens(self, pod: Pod, wanted: frozenset[TokenKey]) -> Mapping[TokenKey, str]:
        """The tokens that the pod needs; asked for where it has them not yet.

        Raises:
            WasmletError: the API server gives none now.
        """
        held = self._held.get(pod.uid)
        if held is not None and held.wanted == wanted:
            return dict(held.tokens)
        self._forget(pod.uid)
        if not wanted:
            return {}
        tokens: dict[TokenKey, str] = {}
        due = self._clock.monotonic() + LONGEST_SECONDS
        for key in sorted(wanted, key=str):
            try:
                tokens[key], life = await self._ask_patiently(pod, key)
            except errors.ApiError as error:
                account = _account(pod)
                raise WasmletError(f"no token for service account {account!r} of {pod.key}: {error}") from None
            due = min(due, self._clock.monotonic() + life)
        task = self._group.create_task(self._refresh(pod, due))
        self._held[pod.uid] = _Held(wanted, tokens, task)
        return dict(tokens)

    def release(self, uid: str) -> None:
        """The pod is gone: its tokens are forgotten."""
        self._refused.discard(uid)
        self._forget(uid)

    def _forget(self, uid: str) -> None:
        if (held := self._held.pop(uid, None)) is not None:
            held.task.cancel()

    async def _refresh(self, pod: Pod, due: float) -> None:
        while True:
            await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
            held = self._held[pod.uid]
            pauses = self._client.recovery.pauses(RETRIES, self._clock, self._rng)
            due = self._clock.monotonic() + LONGEST_SECONDS
            for key in held.wanted:
                while True:
                    try:
                        held.tokens[key], life = await self._ask(pod, key)
                        break
                    except errors.ApiError as error:
                        log.warning("a token is not refreshed, trying again", pod=str(pod.key), error=str(error))
                        await pauses.wait()
                due = min(due, self._clock.monotonic() + life)
            self._changed(pod.uid)

    async def _ask_patiently(self, pod: Pod, key: TokenKey) -> tuple[str, float]:
        """As `_ask`, again and again while the API server may not know yet that the pod is on this node."""
        pauses, until = LAG.pauses(self._rng), self._clock.monotonic() + LAG_SECONDS
        while True:
            try:
                return await self._ask(pod, key)
            except errors.ApiError as error:
                pause = next(pauses)
                if not _may_lag(error) or pod.uid in self._refused:
                    raise
                if self._clock.monotonic() + pause > until:
                    self._refused.add(pod.uid)
                    raise
            await self._clock.sleep(pause)

    async def _ask(self, pod: Pod, key: TokenKey) -> tuple[str, float]:
        """A token and the seconds until it should be refreshed."""
        spec: dict[str, Any] = {
            "expirationSeconds": key.expiration_seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid},
        }
        if key.audience:
            spec["audiences"] = [key.audience]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        account = paths.named(f"/api/v1/namespaces/{pod.namespace}/serviceaccounts", _account(pod))
        answer = await self._client.create(f"{account}/token", body)
        status = answer.get("status") or {}
        try:
            token = str(status["token"])
            life = (parse(str(status["expirationTimestamp"])) - self._clock.now()).total_seconds()
        except (KeyError, ValueError):
            raise errors.ServerError(500, "", "the answer to a TokenRequest has no token or no time") from None
        granted = (answer.get("spec") or {}).get("expirationSeconds")
        if isinstance(granted, int) and granted > 0:
            # The time at which it ends is by the API server's clock, and this machine's may be another one.
            life = granted
        refresh = min(life * LIFE_SHARE, LONGEST_SECONDS) - self._rng.random() * JITTER_SECONDS
        return token, max(LEAST_SECONDS, refresh)


def _may_lag(error: errors.ApiError) -> bool:
    """Whether this may be the answer of an API server that does not know yet that the pod is on this node."""
    missing = str(error.details.get("kind") or "pods")
    return isinstance(error, errors.Forbidden) or (
        isinstance(error, errors.ObjectNotFound) and missing in ("pod", "pods")
    )


def _account(pod: Pod) -> str:
    return str(pod.spec.get("serviceAccountName") or "default")
