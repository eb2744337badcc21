"""A redis as the store of `wascc:keyvalue`, at an address that the pod was granted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import hiredis

from ..capability import Context, HostError, Link

_PORT = 6379
_PASSWORD = "REDIS_PASSWORD"
"""The variable of the container that the password is in, where there is one: an annotation is no place for it."""


class Redis:
    """See `keyvalue.Store`. Connects when it is first used, and again after a connection was lost.

    Args:
        url: `redis://HOST[:PORT][/DATABASE]`.
    """

    def __init__(self, url: str, context: Context) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or _PORT
        self._database = parts.path.strip("/") or "0"
        self._password = context.env.get(_PASSWORD, "")
        self._dial = context.dial
        self._link: Link | None = None
        self._reader = hiredis.Reader()

    def get(self, key: str) -> bytes | None:
        found = self._ask("GET", key)
        return found if found is None else bytes(found)

    def set(self, key: str, value: bytes, seconds: int) -> None:
        self._ask("SET", key, value, *(("EX", str(seconds)) if seconds else ()))

    def add(self, key: str, value: int) -> int:
        return int(self._ask("INCRBY", key, str(value)))

    def delete(self, key: str) -> None:
        self._ask("DEL", key)

    def exists(self, key: str) -> bool:
        return bool(self._ask("EXISTS", key))

    def push(self, key: str, value: bytes) -> int:
        return int(self._ask("RPUSH", key, value))

    def list_delete(self, key: str, value: bytes) -> int:
        self._ask("LREM", key, "0", value)
        return int(self._ask("LLEN", key))

    def range(self, key: str, start: int, stop: int) -> Sequence[bytes]:
        return list(self._ask("LRANGE", key, str(start), str(stop)))

    def set_add(self, key: str, value: bytes) -> int:
        self._ask("SADD", key, value)
        return int(self._ask("SCARD", key))

    def set_remove(self, key: str, value: bytes) -> int:
        self._ask("SREM", key, value)
        return int(self._ask("SCARD", key))

    def members(self, keys: Sequence[str], *, union: bool) -> Sequence[bytes]:
        return list(self._ask("SUNION" if union else "SINTER", *keys)) if keys else []

    def _ask(self, *words: str | bytes) -> Any:
        """What it answers.

        Raises:
            HostError: it answers with an error, or cannot be reached.
        """
        if self._link is None:
            self._connect()
        try:
            return self._answer(words)
        except _Lost:  # while it was idle, maybe: tried once more, as nothing came back
            self._connect()
            try:
                return self._answer(words)
            except _Lost:
                raise HostError("redis has closed the connection") from None

    def _connect(self) -> None:
        self._close()
        self._link = self._dial(self._host, self._port)
        try:
            if self._password:
                self._answer(("AUTH", self._password))
            if self._database != "0":
                self._answer(("SELECT", self._database))
        except _Lost:
            raise HostError("redis has closed the connection") from None

    def _answer(self, words: tuple[str | bytes, ...]) -> Any:
        assert self._link is not None
        try:
            self._link.send(hiredis.pack_command(words))
            while (found := self._reader.gets()) is False:
                data = self._link.receive()
                if not data:
                    raise _Lost
                self._reader.feed(data)
        except (HostError, _Lost, hiredis.ProtocolError) as error:
            self._close()
            if isinstance(error, hiredis.ProtocolError):
                raise HostError("what answers is no redis") from None
            raise
        if isinstance(found, hiredis.ReplyError):
            raise HostError(f"redis: {str(found)[:200]}")
        return found

    def _close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        self._reader = hiredis.Reader()


class _Lost(Exception):
    """The connection has ended."""
