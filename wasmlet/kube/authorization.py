"""The `Authorization` header of requests: a fixed token, a token in a file that may change, or a name and a password.

A token file is read again each minute, as client-go does: that is half of the time between a kubelet's renewal of a
service account's token and the end of the one before. White space around the token in the file is ignored.
"""

from __future__ import annotations

import asyncio
import base64
import re
from pathlib import Path
from typing import Protocol

import attrs
import structlog

from wasmlet.clock import Clock
from wasmlet.errors import ConfigError

log = structlog.get_logger(__name__)

READ_SECONDS = 60.0
ANSWER_SECONDS = 1.0
"""How long a request waits for a file system; one over a network may never answer."""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_UNESCAPED = re.compile(r"[^!#$&'*+.^_`|~0-9A-Za-z-]")


class Authorization(Protocol):
    """Where the `Authorization` header comes from."""

    async def header(self) -> str | None:
        """Its value for the next request; None for none."""
        ...


@attrs.frozen
class Fixed:
    """The same for every request."""

    value: str | None = attrs.field(default=None, repr=False)

    async def header(self) -> str | None:
        return self.value


@attrs.define
class TokenFile:
    """A bearer token in a file. While the file cannot be read, the last token stays."""

    _path: Path
    _clock: Clock
    _token: str = attrs.field(repr=False)
    _read: float
    _reading: asyncio.Future[str] | None = attrs.field(default=None, init=False, repr=False)
    """The one that is under way; there is no second one beside it, since each has a thread."""

    @classmethod
    def opened(cls, path: Path, clock: Clock, fallback: str = "") -> TokenFile:
        """Read a token file for the first time.

        Args:
            fallback: the token to use while the file has none.

        Raises:
            ConfigError: it has none, and there is no fallback.
        """
        now = clock.monotonic()
        try:
            return cls(path, clock, _token(path), now)
        except ConfigError:
            if not fallback:
                raise
            return cls(path, clock, fallback, now)

    async def header(self) -> str | None:
        now = self._clock.monotonic()
        if self._reading is None and now - self._read >= READ_SECONDS:
            self._read = now
            self._reading = asyncio.get_running_loop().run_in_executor(None, _token, self._path)
            if not (await asyncio.wait({self._reading}, timeout=ANSWER_SECONDS))[0]:
                log.warning("the token file cannot be read yet: the token before stays", path=str(self._path))
        if self._reading is not None and self._reading.done():
            reading, self._reading = self._reading, None
            try:
                self._token = reading.result()
            except ConfigError as error:
                log.warning("the token cannot be read again: the one before stays", error=str(error))
        return f"Bearer {self._token}"


def bearer(token: str) -> Fixed:
    """A token that stays.

    Raises:
        ConfigError: no request can carry it.
    """
    return Fixed(f"Bearer {sendable(token, 'the token')}")


def basic(username: str, password: str) -> Fixed:
    """A name and a password."""
    return Fixed("Basic " + base64.b64encode(f"{username}:{password}".encode()).decode())


def sendable(value: str, what: str) -> str:
    """The value as an HTTP header can carry it: without spaces at its end.

    Raises:
        ConfigError: it has a control character in it; the message shows nothing of the value.
    """
    if _CONTROL.search(value):
        raise ConfigError(f"{what} has a line break or another control character in it, which no request can carry")
    return value.rstrip(" \t")


def escaped(key: str) -> str:
    """A key of `as-user-extra` as a part of a header's name: what may not stand there is percent-encoded."""
    return _UNESCAPED.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), key)


def _token(path: Path) -> str:
    try:
        token = path.read_bytes().decode().strip()
    except OSError as error:
        raise ConfigError(f"token file {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"token file {path}: expected a token, found bytes that are no text") from None
    if not token:
        raise ConfigError(f"token file {path}: expected a token, found an empty file")
    return sendable(token, f"token file {path}: the token")
