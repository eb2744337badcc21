"""How an agent joins a host: what it sends with its token, and the paths that it dials.

An agent makes a key of its own and sends the key's hash with the token, so that a repeated request is the same request.
From then on it shows the key. Each websocket at its link's path is one connection of HTTP/1.1 with the roles swapped:
the host asks and the agent answers; binary messages are pieces of its bytes.
"""

from __future__ import annotations

import hashlib
import re

import attrs

from wasmlet_agent.protocol import PREFIX

JOIN = PREFIX + "/join"
AUTHORITIES = PREFIX + "/authorities"
"""Where the host shows its certificate authorities (PEM), to agents that know the hash of one of them."""
LINK = PREFIX + "/link/{name}"

PING_SECONDS = 30.0
"""How often an agent pings a link on which it hears nothing."""
DEAD_SECONDS = 75.0
"""After so long without a message or a ping, a host takes a link for dead."""
MOST_JOIN = 8 * 1024
"""Bytes of the body of a request to join."""
MOST_MESSAGE = 64 * 1024
"""Bytes of a message of a link."""
TOKEN = re.compile(r"([a-z0-9]{4,32})\.([A-Za-z0-9_-]{16,128})")
"""A join token: which Secret, and what it has to hold."""
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
NAME = re.compile(rf"(?=.{{1,63}}$){_LABEL}(\.{_LABEL})*")
"""A node's name, labels with dots between them; no longer than the value of a label, which the Node has with it."""


@attrs.frozen
class JoinRequest:
    """`POST /v1/join`.

    Attributes:
        name: of the Node that the agent is to be.
        token: `ID.SECRET`.
        key: SHA-256 of the agent's own key, in hexadecimal.
    """

    name: str
    token: str = attrs.field(repr=False)
    key: str


@attrs.frozen
class JoinAnswer:
    """The agent has joined. `pool` is that of its token."""

    name: str
    pool: str = ""


def hash_of(key: str) -> str:
    """What a host keeps of an agent's key."""
    return hashlib.sha256(key.encode()).hexdigest()
