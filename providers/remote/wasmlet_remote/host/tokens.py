"""Join tokens and agents' keys, which are Secrets of one namespace.

A token is `wasmlet.dev/join-token`: `secret`, and as far as somebody limits it `expires` (RFC 3339), `names` (a glob),
`uses` (a number) and `pool`; from a use until the key is kept also `last`, who used it. A key is
`wasmlet.dev/agent-key`: the agent's `name` and the key's `hash`. Whoever deletes one takes back what it grants.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hmac
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import attrs
from wasmlet_agent.protocol.failures import Unauthorized
from wasmlet_agent.protocol.joining import NAME, TOKEN, JoinRequest

from wasmlet import Clock, InvalidInput, WasmletError
from wasmlet.kube import Client, errors
from wasmlet.model.times import parse, rfc3339

TOKEN_TYPE = "wasmlet.dev/join-token"
KEY_TYPE = "wasmlet.dev/agent-key"
POOL_LABEL = "wasmlet.dev/pool"
AGENT_LABEL = "wasmlet.dev/agent"
"""Of the Secrets with keys, so that they can be listed without all others."""
TRIES = 10
"""How often to try to count a use of a token, when other agents use it at the same time."""
_HASH = 64


class Refusal(WasmletError):
    """The token is valid, but the agent cannot join with it under this name or at this time."""


@attrs.frozen
class Agent:
    """An agent that has joined.

    Attributes:
        hash: of its key, in hexadecimal.
    """

    name: str
    hash: str = attrs.field(repr=False)
    pool: str = ""

    def has(self, digest: str) -> bool:
        """Whether that is the hash of its key."""
        return hmac.compare_digest(self.hash, digest)


@attrs.frozen
class _Token:
    """A token as its Secret has it."""

    version: str
    expires: datetime | None
    names: str
    uses: int | None
    pool: str
    last: str

    def used_by(self, request: JoinRequest) -> bool:
        """Whether its last use was for this very request. That is so when the key could not be stored afterwards."""
        return hmac.compare_digest(self.last.encode(), _user(request).encode())

    def check(self, name: str, now: datetime) -> None:
        """See that an agent of this name may join now.

        Raises:
            Refusal: it may not; the message says why.
        """
        if self.expires is not None and now >= self.expires:
            raise Refusal(f"the token has expired at {rfc3339(self.expires)}; make another with `wasmlet host token`")
        if self.uses is not None and self.uses < 1:
            raise Refusal("the token has been used up; make another with `wasmlet host token`")
        if not fnmatch.fnmatchcase(name, self.names):
            raise Refusal(f"the token is for names like {self.names!r}, found {name!r}; choose one with --node-name")


class Tokens:
    """Admits agents by tokens.

    Args:
        namespace: that of the Secrets.
        vet: sees that there can be a node of a name, before a token is used for it, or raises.
        pool: whose tokens alone are taken; "" takes all.
    """

    def __init__(
        self, client: Client, namespace: str, vet: Callable[[str], Awaitable[None]], clock: Clock, *, pool: str = ""
    ) -> None:
        self._client = client
        self._vet = vet
        self.path = f"/api/v1/namespaces/{namespace}/secrets"
        self._clock = clock
        self._pool = pool

    async def admit(self, request: JoinRequest) -> Agent:
        """The agent with its token used once, and its key kept; the same request again uses nothing.

        Raises:
            InvalidInput: the name or the key is none.
            Unauthorized: there is no such token.
            Refusal: it is of no use, or another agent has that name.
            ApiError: the API server does not answer as it should.
        """
        if not NAME.fullmatch(request.name):
            raise InvalidInput("name: expected at most 63 lower-case letters, digits, '-' and '.'")
        if not _is_hash(request.key):
            raise InvalidInput("key: expected a SHA-256 in hexadecimal")
        token = await self._token(request.token)
        if self._pool not in ("", token.pool):
            raise Refusal(
                f"this host is pool {self._pool}'s; make a token with `wasmlet host token --pool {self._pool}`"
            )
        known = await self._key(request.name)
        if known is not None:
            if known.has(request.key):
                await self._settle(request, token)
                return known
            raise Refusal(
                f"another agent has joined as {request.name}; choose another name with --node-name, or delete Secret "
                f"{key_name(request.name)}"
            )
        if not token.used_by(request):
            token.check(request.name, self._clock.now())
        await self._vet(request.name)
        token = await self._use(request, token)
        agent = await self._keep(Agent(request.name, request.key, token.pool))
        await self._settle(request, token)
        return agent

    async def _token(self, text: str) -> _Token:
        match = TOKEN.fullmatch(text)
        name, shown = (token_name(match[1]), match[2]) if match else ("", "")
        try:
            raw = await self._client.get(f"{self.path}/{name}") if name else {}
        except errors.ObjectNotFound:
            raw = {}
        data = data_of(raw) if raw.get("type") == TOKEN_TYPE else {}
        wanted = data.get("secret", "")
        same = hmac.compare_digest(wanted.encode(), shown.encode())  # also where there is none: the same time for both
        if not (same and len(wanted) >= 16):
            raise Unauthorized("expected the token of a Secret of this host, found another; see `wasmlet host token`")
        try:
            return _Token(
                version=str(raw["metadata"].get("resourceVersion", "")),
                expires=parse(data["expires"]) if data.get("expires") else None,
                names=data.get("names") or "*",
                uses=int(data["uses"]) if data.get("uses") else None,
                pool=data.get("pool", ""),
                last=data.get("last", ""),
            )
        except ValueError:
            raise Refusal(f"Secret {name} has an `expires` or `uses` that cannot be read; mend it") from None

    async def _use(self, request: JoinRequest, token: _Token) -> _Token:
        """Count one use of the token, also when others do so at the same time. Returns the token after that."""
        for _ in range(TRIES):
            if token.uses is None or token.used_by(request):
                return token
            user = _user(request)
            data = {"uses": _base64(str(token.uses - 1)), "last": _base64(user)}
            try:
                await self._patch(request, {"metadata": {"resourceVersion": token.version}, "data": data})
                return attrs.evolve(token, uses=token.uses - 1, last=user)
            except errors.Conflict:
                token = await self._token(request.token)
                if not token.used_by(request):
                    token.check(request.name, self._clock.now())
        raise errors.TooManyRequests(429, "Conflict", "many agents join with this token at once; try again")

    async def _settle(self, request: JoinRequest, token: _Token) -> None:
        """Remove from the token who has used it last, now that the key is stored.

        Otherwise the same agent could join again, without another use of the token, after somebody has deleted its key.
        """
        if token.used_by(request):
            await self._patch(request, {"data": {"last": None}})

    async def _patch(self, request: JoinRequest, patch: Mapping[str, Any]) -> None:
        match = TOKEN.fullmatch(request.token)
        assert match is not None
        await self._client.patch(f"{self.path}/{token_name(match[1])}", patch, "application/merge-patch+json")

    async def _key(self, name: str) -> Agent | None:
        try:
            return agent_in(await self._client.get(f"{self.path}/{key_name(name)}"))
        except errors.ObjectNotFound:
            return None

    async def _keep(self, agent: Agent) -> Agent:
        labels = {AGENT_LABEL: "true", **({POOL_LABEL: agent.pool} if agent.pool else {})}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": key_name(agent.name), "labels": labels},
            "type": KEY_TYPE,
            "data": {
                key: _base64(text) for key, text in (("name", agent.name), ("hash", agent.hash), ("pool", agent.pool))
            },
        }
        try:
            await self._client.create(self.path, body)
        except errors.AlreadyExists:
            known = await self._key(agent.name)
            if known is None or not known.has(agent.hash):
                raise Refusal(f"another agent has just joined as {agent.name}") from None
        return agent


def _user(request: JoinRequest) -> str:
    return f"{request.name} {request.key}"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def token_name(token: str) -> str:
    """The name of a token's Secret, by its ID."""
    return f"join-{token}"


def key_name(agent: str) -> str:
    """The name of the Secret with an agent's key."""
    return f"agent-{agent}"


def _is_hash(text: str) -> bool:
    """Whether it is a SHA-256 in lower-case hexadecimal."""
    return len(text) == _HASH and not set(text) - set("0123456789abcdef")


def agent_in(secret: Mapping[str, Any]) -> Agent | None:
    """The agent whose key a Secret has; None where it has none."""
    data = data_of(secret)
    name, digest = data.get("name", ""), data.get("hash", "")
    right = secret.get("type") == KEY_TYPE and NAME.fullmatch(name) and _is_hash(digest)
    mine = right and (secret.get("metadata") or {}).get("name") == key_name(name)
    return Agent(name, digest, data.get("pool", "")) if mine else None


def data_of(secret: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a Secret; what is no text is left out."""
    found = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            found[key] = base64.b64decode(value, validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError, TypeError):
            continue
    return found
