"""Authentication: finds the user, with groups, of a client certificate or of a bearer token.

`http.server` asks once for each request; `authorizer` decides what the user may do.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import attrs

from wasmlet.clock import Clock
from wasmlet.controlplane.storage import status

AUDIENCE = "https://kubernetes.default.svc.cluster.local"
"""The API server, as the audience of a token."""
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"
NODES = "system:nodes"
_NODE_PREFIX = "system:node:"
TOKENS = 1000
"""How many tokens are kept before expired ones are looked for and removed."""


@attrs.frozen
class User:
    """A user as authorizers see it. `extra` is what a token says beside the name."""

    name: str
    groups: frozenset[str] = frozenset()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict, eq=False)

    @property
    def master(self) -> bool:
        return MASTERS in self.groups

    @property
    def node(self) -> str | None:
        """The name of the node that this is, or None."""
        if NODES in self.groups and self.name.startswith(_NODE_PREFIX):
            return self.name.removeprefix(_NODE_PREFIX) or None
        return None


ANONYMOUS = User("system:anonymous", frozenset([UNAUTHENTICATED]))


def user(name: str, groups: Iterable[str] = (), **more: Any) -> User:
    """An authenticated user."""
    return User(name, frozenset([*groups, AUTHENTICATED]), **more)


@attrs.frozen
class Token:
    """A bearer token that was issued: its user, its end, its audiences. `alive`: whether its bound object exists."""

    user: User
    until: datetime | None = None
    audiences: tuple[str, ...] = (AUDIENCE,)
    alive: Callable[[], bool] = lambda: True

    def lives(self, now: datetime) -> bool:
        """Whether the token is still valid."""
        return (self.until is None or now < self.until) and self.alive()


class Authenticator:
    """Knows the tokens that were issued, and reads client certificates, which TLS has verified."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens: dict[str, Token] = {}
        self._full = TOKENS
        self._certificates: dict[str, User] = {}
        self.bootstrap: Callable[[str], User | None] = lambda token: None
        """Finds the user of a bootstrap token; `ControlPlane` sets it."""

    def issue(self, token: Token, text: str = "") -> str:
        """Issue a bearer token, of this text or of a random one. Tokens that have expired are removed now and then."""
        text = text or secrets.token_urlsafe(32)
        if len(self._tokens) >= self._full:  # not each time: there may be thousands
            now = self._clock.now()
            self._tokens = {old: known for old, known in self._tokens.items() if known.lives(now)}
            self._full = max(TOKENS, 2 * len(self._tokens))
        self._tokens[text] = token
        return text

    def token(self, text: str) -> Token | None:
        """The token of this text; None if there is none, or if it is no longer valid."""
        found = self._tokens.get(text)
        if found is None:
            who = self.bootstrap(text)
            return None if who is None else Token(who)
        return found if found.lives(self._clock.now()) else None

    def certificate(self, peer: Mapping[str, Any]) -> User:
        """The user that a verified client certificate names."""
        serial = str(peer["serialNumber"])
        found = self._certificates.get(serial)
        if found is None:
            name, groups = "", []
            for part in peer["subject"]:
                for key, value in part:
                    if key == "commonName":
                        name = value
                    elif key == "organizationName":
                        groups.append(value)
            found = self._certificates[serial] = user(name, groups)
        return found

    def authenticate(self, authorization: str | None, peer: Mapping[str, Any] | None) -> User:
        """The user who makes a request.

        Raises:
            ApiError: 401, the token was not issued here, has expired, or is for another audience.
        """
        if peer:
            return self.certificate(peer)
        if authorization:
            scheme, _, token = authorization.partition(" ")
            found = self.token(token.strip()) if scheme.lower() == "bearer" else None
            if found is None or AUDIENCE not in found.audiences:
                raise status.unauthorized()
            return found.user
        return ANONYMOUS
