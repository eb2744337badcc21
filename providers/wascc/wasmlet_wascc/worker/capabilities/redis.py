"""A redis as the store of `wascc:keyvalue`, at an address that the pod was granted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import hiredis

from ..capability import Context, HostError, Link
from ..messages import MOST_BYTES

_PORT = 6379
_IDLE_SECONDS = 5.0
"""After so long it is asked whether it is still there: it may close what is idle."""
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
        self._used = 0.0
        self._reader = hiredis.Reader()

    def get(self, key: str) -> bytes | None:
        found = self._ask("GET", key, reads=True)
        return None if found is None else _bytes(found)

    def set(self, key: str, value: bytes, seconds: int) -> None:
        self._ask("SET", key, value, *(("EX", str(seconds)) if seconds else ()))

    def add(self, key: str, value: int) -> int:
        return _number(self._ask("INCRBY", key, str(value)))

    def delete(self, key: str) -> None:
        self._ask("DEL", key)

    def exists(self, key: str) -> bool:
        return bool(_number(self._ask("EXISTS", key, reads=True)))

    def push(self, key: str, value: bytes) -> int:
        return _number(self._ask("RPUSH", key, value))

    def list_delete(self, key: str, value: bytes) -> int:
        self._ask("LREM", key, "0", value)
        return _number(self._ask("LLEN", key, reads=True))

    def range(self, key: str, start: int, stop: int) -> Sequence[bytes]:
        return _list(self._ask("LRANGE", key, str(start), str(stop), reads=True))

    def set_add(self, key: str, value: bytes) -> int:
        self._ask("SADD", key, value)
        return _number(self._ask("SCARD", key, reads=True))

    def set_remove(self, key: str, value: bytes) -> int:
        self._ask("SREM", key, value)
        return _number(self._ask("SCARD", key, reads=True))

    def members(self, keys: Sequence[str], *, union: bool) -> Sequence[bytes]:
        return _list(self._ask("SUNION" if union else "SINTER", *keys, reads=True)) if keys else []

    def _ask(self, *words: str | bytes, reads: bool = False) -> Any:
        """What it answers.

        Args:
            reads: it changes nothing, so that it may be asked twice.

        Raises:
            HostError: it answers with an error, or cannot be reached.
        """
        if self._link is not None and time.monotonic() - self._used > _IDLE_SECONDS:
            try:
                self._answer(("PING",))
            except (HostError, _Lost):
                self._close()
        for last in (not reads, True):
            if self._link is None:
                self._connect()
            try:
                return self._answer(words)
            except _Lost:
                if last:
                    break
        done = "" if reads else "; whether it has been done is not known"
        raise HostError(f"redis has closed the connection{done}")

    def _connect(self) -> None:
        self._close()
        self._link = self._dial(self._host, self._port)
        try:
            if self._password:
                self._answer(("AUTH", self._password))
            if self._database != "0":
                self._answer(("SELECT", self._database))
        except (HostError, _Lost) as error:
            self._close()
            if isinstance(error, HostError):
                raise
            raise HostError("redis has closed the connection") from None

    def _answer(self, words: tuple[str | bytes, ...]) -> Any:
        assert self._link is not None
        size = 0
        try:
            self._link.send(hiredis.pack_command(words))
            while (found := self._reader.gets()) is False:
                data = self._link.receive()
                if not data:
                    raise _Lost
                size += len(data)
                if size > MOST_BYTES:
                    raise HostError(f"redis answers with more than {MOST_BYTES} bytes")
                self._reader.feed(data)
        except (HostError, _Lost, hiredis.ProtocolError) as error:
            self._close()
            if isinstance(error, hiredis.ProtocolError):
                raise HostError("what answers is no redis") from None
            raise
        self._used = time.monotonic()
        if isinstance(found, hiredis.ReplyError):
            raise HostError(f"redis: {' '.join(str(found)[:200].split())}")
        return found

    def _close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        self._reader = hiredis.Reader()


def _bytes(found: Any) -> bytes:
    if not isinstance(found, bytes):
        raise HostError("what answers is no redis: expected a text")
    return found


def _number(found: Any) -> int:
    if isinstance(found, bool) or not isinstance(found, int):
        raise HostError("what answers is no redis: expected a number")
    return found


def _list(found: Any) -> list[bytes]:
    if not isinstance(found, list):
        raise HostError("what answers is no redis: expected a list")
    return [_bytes(one) for one in found]


class _Lost(Exception):
    """The connection has ended."""
