"""Who is asking: client certificates and bearer tokens, as users with groups.

`server` asks once per request; `authorizer` decides what the user may do.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import attrs

from wasmlet.clock import Clock
from wasmlet.testing import status

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"
NODES = "system:nodes"
_NODE_PREFIX = "system:node:"


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


class Authenticator:
    """Knows the tokens that were given out and reads client certificates (already verified by TLS)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens: dict[str, tuple[User, datetime | None]] = {}
        self._certificates: dict[str, User] = {}
        self.bootstrap: Callable[[str], User | None] = lambda token: None
        """Set by `control_plane`: whose a bootstrap token is."""

    def issue(self, who: User, token: str | None = None, *, until: datetime | None = None) -> str:
        """A bearer token for a user, for ever or until a time. Tokens that have run out are forgotten."""
        text = token or secrets.token_urlsafe(32)
        if until is not None:
            now = self._clock.now()
            for old in [old for old, (_, end) in self._tokens.items() if end is not None and end <= now]:
                del self._tokens[old]
        self._tokens[text] = (who, until)
        return text

    def token(self, text: str) -> User | None:
        """The user that a token belongs to."""
        who, until = self._tokens.get(text, (None, None))
        if who is None:
            return self.bootstrap(text)
        return None if until is not None and until <= self._clock.now() else who

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
        """Who is asking.

        Raises:
            ApiError: 401, a token that was not given out here.
        """
        if peer:
            return self.certificate(peer)
        if authorization:
            scheme, _, token = authorization.partition(" ")
            found = self.token(token.strip()) if scheme.lower() == "bearer" else None
            if found is None:
                raise status.unauthorized()
            return found
        return ANONYMOUS
