"""Credentials that a plugin or an issuer of tokens has given: asked for once for all clients of an event loop.

client-go keeps one authenticator for each plugin and each login in a process, and so do clients here: those that ask
for the same thing at once share the answer, and so do those that ask later, until it ends or the API server refuses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime
from weakref import WeakKeyDictionary

import attrs

from wasmlet.errors import ConfigError


@attrs.frozen(eq=False)
class Granted:
    """Credentials that were given for a while.

    Attributes:
        until: when they end; None where the plugin did not say.
        refresh_token: the token to ask for the next credentials with, if the issuer has given one.
    """

    token: str = attrs.field(default="", repr=False)
    certificate: bytes = attrs.field(default=b"", repr=False)
    key: bytes = attrs.field(default=b"", repr=False)
    until: datetime | None = None
    refresh_token: str = attrs.field(default="", repr=False)


Ask = Callable[[Granted | None], Awaitable[Granted]]
"""Asks for credentials; told the last ones that were given."""


@attrs.define
class _Held:
    """What was given last for one thing that can be asked for."""

    lock: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    granted: Granted | None = None
    asked: int = 0
    error: ConfigError | None = None
    """What the last question failed with."""

    def good(self, refused: Granted | None, now: datetime) -> Granted | None:
        granted = self.granted
        if granted is None or granted is refused or (granted.until is not None and granted.until <= now):
            return None
        return granted


_held: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _Held]] = WeakKeyDictionary()


async def shared(key: Hashable, ask: Ask, refused: Granted | None, now: Callable[[], datetime]) -> Granted:
    """The credentials for `key`: those that were given before, if they are still good, or new ones.

    Args:
        key: what is asked for, and of whom.
        ask: gets new credentials.
        refused: credentials that the API server does not accept any more; they are never returned again.

    Raises:
        ConfigError: `ask` failed, for this caller or for one that asked at the same time.
    """
    held = _held.setdefault(asyncio.get_running_loop(), {}).setdefault(key, _Held())
    asked = held.asked
    async with held.lock:
        if (granted := held.good(refused, now())) is not None:
            return granted
        if held.asked != asked and held.error is not None:
            raise held.error
        held.error = None
        try:
            held.granted = await ask(held.granted)
        except ConfigError as error:
            held.error = error
            raise
        finally:
            held.asked += 1
        return held.granted
