"""A redis as the store of `wascc:keyvalue`, at an address that the pod was granted.

Source: redis's protocol, RESP2. An answer is bounded in its bytes, its entries and their depth.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from ..capability import Context, HostError, Link
from ..failures import Ended
from ..messages import MOST_BYTES
from ..reading import Reader

_PORT = 6379
_TLS = "rediss"
_IDLE_SECONDS = 5.0
"""A connection that was idle for so long is tested with PING first: redis may have closed it."""
_PASSWORD = "REDIS_PASSWORD"
"""The container's variable with the password, which does not belong into an annotation.

The variable for one binding has the binding's name at its end, such as REDIS_PASSWORD_CACHE. The name without it is
used only if there is a single binding, so that no server gets the password of another."""
_NO_VARIABLE = re.compile(r"[^A-Z0-9]")
_MOST_ENTRIES, _DEEPEST = 100_000, 4
_LONGEST_NUMBER = 20
_NO_REDIS = "what answers is no redis"
_TOO_LARGE = f"redis answers with more than {MOST_BYTES} bytes, or {_MOST_ENTRIES} entries"


class Redis:
    """See `keyvalue.Store`. Connects when it is first used, and again after a connection was lost.

    Args:
        url: `redis://HOST[:PORT][/DATABASE]`, or `rediss://` for TLS.
        binding: the name by which actors have it.
    """

    def __init__(self, url: str, binding: str, context: Context) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or _PORT
        self._by_tls = parts.scheme == _TLS
        self._database = parts.path.strip("/") or "0"
        own = f"{_PASSWORD}_{_NO_VARIABLE.sub('_', binding.upper())}"
        self._variable = _PASSWORD if len(context.settings) == 1 and own not in context.env else own
        self._password = context.env.get(self._variable, "")
        self._dial = context.dial
        self._link: Link | None = None
        self._answers: _Answers | None = None
        self._used = 0.0

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
            reads: the command changes nothing, so that it may be sent a second time.

        Raises:
            HostError: it answers with an error, or cannot be reached.
        """
        if self._link is not None and time.monotonic() - self._used > _IDLE_SECONDS:
            try:
                self._answer(("PING",))
            except HostError:
                self._close()
        for last in (not reads, True):
            if self._link is None:
                self._connect()
            try:
                return self._answer(words)
            except Ended:
                if last:
                    break
        done = "" if reads else "; whether it has been done is not known"
        raise HostError(f"redis has closed the connection{done}")

    def _connect(self) -> None:
        self._close()
        self._link = self._dial(self._host, self._port)
        try:
            if self._by_tls:
                self._link.secure(self._host)
            self._answers = _Answers(self._link)
            if self._password:
                self._authenticate()
            if self._database != "0":
                self._answer(("SELECT", self._database))
        except HostError as error:
            self._close()
            if isinstance(error, Ended):
                raise HostError("redis has closed the connection") from None
            raise

    def _authenticate(self) -> None:
        """Say the password. What redis answers is not passed on: it may repeat the password."""
        try:
            self._answer(("AUTH", self._password))
        except _Refusal:
            raise HostError(f"redis refuses the password of the container's variable {self._variable}") from None

    def _answer(self, words: tuple[str | bytes, ...]) -> Any:
        assert self._link is not None
        assert self._answers is not None
        try:
            self._link.send(_packed(words))
            found = self._answers.next()
        except HostError:
            self._close()
            raise
        self._used = time.monotonic()
        if isinstance(found, _Error):
            if found.words.startswith("NOAUTH"):
                raise _Refusal(f"redis expects a password; put it into the container's variable {self._variable}")
            raise _Refusal(f"redis: {' '.join(found.words[:200].split())}")
        return found

    def _close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        self._answers = None


class _Refusal(HostError):
    """Redis has answered, with an error."""


class _Error:
    """What redis answers where it refuses."""

    def __init__(self, words: str) -> None:
        self.words = words


class _Answers:
    """The answers that come over a connection."""

    def __init__(self, link: Link) -> None:
        self._reader = Reader(link, "redis")
        self._bytes = self._entries = 0
        """How many bytes and entries the present answer may still have."""

    def next(self) -> Any:
        """The next one: a number, bytes, a list, None, or an `_Error`.

        Raises:
            HostError: it does not come, is too large, or is none.
        """
        self._bytes, self._entries = MOST_BYTES, _MOST_ENTRIES
        return self._value(0)

    def _value(self, depth: int) -> Any:
        line = self._reader.line()
        self._take(len(line), 1)
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return _Error(rest.decode(errors="replace"))
        if kind == b":":
            return _whole(rest)
        size = _whole(rest) if kind in (b"$", b"*") else -2
        if size < -1 or depth > _DEEPEST:
            raise HostError(_NO_REDIS)
        if size == -1:
            return None
        if kind == b"$":
            self._take(size, 0)
            return self._reader.take(size)
        if size > self._entries:
            raise HostError(_TOO_LARGE)
        return [self._value(depth + 1) for _ in range(size)]

    def _take(self, size: int, entries: int) -> None:
        self._bytes -= size
        self._entries -= entries
        if self._bytes < 0 or self._entries < 0:
            raise HostError(_TOO_LARGE)


def _packed(words: Sequence[str | bytes]) -> bytes:
    """A command as it is sent."""
    out = bytearray(b"*%d\r\n" % len(words))
    for word in words:
        data = word.encode() if isinstance(word, str) else word
        out += b"$%d\r\n%b\r\n" % (len(data), data)
    return bytes(out)


def _whole(digits: bytes) -> int:
    if len(digits) > _LONGEST_NUMBER or not digits.removeprefix(b"-").isdigit():
        raise HostError(_NO_REDIS)
    return int(digits)


def _bytes(found: Any) -> bytes:
    if not isinstance(found, bytes):
        raise HostError(f"{_NO_REDIS}: expected a text")
    return found


def _number(found: Any) -> int:
    if isinstance(found, bool) or not isinstance(found, int):
        raise HostError(f"{_NO_REDIS}: expected a number")
    return found


def _list(found: Any) -> list[bytes]:
    if not isinstance(found, list):
        raise HostError(f"{_NO_REDIS}: expected a list")
    return [_bytes(one) for one in found]
