"""`wascc:keyvalue`: values, lists and sets, each stored under a key.

They are stored in the memory of this process, or in redis servers that the pod may reach.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..capability import Context, HostError
from ..messages import BadMessage, both, field, named, number, octets, text
from .redis import Redis

MOST_BYTES = 64 * 2**20
"""The most bytes that are stored in this process, together with the keys."""
_MOST_KEYS = 1000
_EACH = 64
"""Bytes that each entry counts in addition to its own."""


_KEY_VALUE = ("key", "value")
_NAMES = {"Set": ("key", "value", "expires"), "Range": ("key", "start", "stop"), "SetUnion": ("keys",),
          "SetIntersection": ("keys",)}  # fmt: skip
"""The fields of each operation's message, in the order in which older actors send them; others take `_KEY_VALUE`."""


class Store(Protocol):
    """A place that stores values, lists and sets. Each method raises `HostError` if it fails."""

    def get(self, key: str) -> bytes | None: ...
    def set(self, key: str, value: bytes, seconds: int) -> None: ...
    def add(self, key: str, value: int) -> int: ...
    def delete(self, key: str) -> None: ...
    def exists(self, key: str) -> bool: ...
    def push(self, key: str, value: bytes) -> int: ...
    def list_delete(self, key: str, value: bytes) -> int: ...
    def range(self, key: str, start: int, stop: int) -> Sequence[bytes]: ...
    def set_add(self, key: str, value: bytes) -> int: ...
    def set_remove(self, key: str, value: bytes) -> int: ...
    def members(self, keys: Sequence[str], *, union: bool) -> Sequence[bytes]: ...


class KeyValue:
    """Answers actors from stores, one for each binding: those that the pod names, or this process's memory."""

    def __init__(self, context: Context) -> None:
        self._named = {name: _Operations(Redis(url, name, context)) for name, url in context.settings.items()}
        self._here: dict[str, _Operations] = {}
        self._budget = Budget(MOST_BYTES)

    def call(self, binding: str, operation: str, message: Any) -> Any:
        """See `Capability`."""
        do = self._store(binding).found.get(operation)
        if do is None:
            raise HostError(f"wascc:keyvalue has no operation {operation[:80]!r}")
        return both(do(named(message, _NAMES.get(operation, _KEY_VALUE))))

    def _store(self, binding: str) -> _Operations:
        if self._named:
            if binding not in self._named:
                raise HostError(f"there is no binding {binding[:80]!r}; the pod names {', '.join(self._named)}")
            return self._named[binding]
        if binding not in self._here:
            self._budget.take(len(binding) + _EACH)
            self._here[binding] = _Operations(Memory(self._budget))
        return self._here[binding]


class _Operations:
    """What actors may ask of a store, by name."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.found: dict[str, Callable[[Any], dict[str, Any]]] = {
            "Add": self._add,
            "Get": self._get,
            "Set": self._set,
            "Del": self._delete,
            "Delete": self._delete,
            "Clear": self._clear,
            "Range": self._range,
            "Push": lambda m: _count(self._store.push(text(m, "key"), octets(field(m, "value")))),
            "ListItemDelete": lambda m: _count(self._store.list_delete(text(m, "key"), octets(field(m, "value")))),
            "SetAdd": lambda m: _count(self._store.set_add(text(m, "key"), octets(field(m, "value")))),
            "SetRemove": lambda m: _count(self._store.set_remove(text(m, "key"), octets(field(m, "value")))),
            "SetUnion": lambda m: _values(self._store.members(_keys(m), union=True)),
            "SetIntersection": lambda m: _values(self._store.members(_keys(m), union=False)),
            "SetQuery": lambda m: _values(self._store.members([text(m, "key")], union=True)),
            "KeyExists": lambda m: {"value": "", "exists": self._store.exists(text(m, "key"))},
        }

    def _add(self, message: Any) -> dict[str, Any]:
        return {"value": self._store.add(text(message, "key"), number(message, "value"))}

    def _get(self, message: Any) -> dict[str, Any]:
        found = self._store.get(text(message, "key"))
        return {"value": _shown(found or b""), "exists": found is not None}

    def _set(self, message: Any) -> dict[str, Any]:
        value = octets(field(message, "value"))
        expires = field(message, "expires", field(message, "expiresS", 0))
        if isinstance(expires, bool) or not isinstance(expires, int) or expires < 0:
            raise BadMessage("expected expires to be seconds, 0 for none")
        self._store.set(text(message, "key"), value, expires)
        return {"value": _shown(value)}

    def _delete(self, message: Any) -> dict[str, Any]:
        key = text(message, "key")
        self._store.delete(key)
        return {"key": key}

    def _clear(self, message: Any) -> dict[str, Any]:
        self._store.delete(text(message, "key"))
        return {"newCount": 0}

    def _range(self, message: Any) -> dict[str, Any]:
        found = self._store.range(text(message, "key"), number(message, "start"), number(message, "stop"))
        return _values(found)


class Budget:
    """Bytes that all stores of a container may take together."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def take(self, size: int) -> None:
        """Count these bytes.

        Raises:
            HostError: there are not so many left.
        """
        if size > self._left:
            raise HostError(f"the store is full: it takes {self._most >> 20} MiB")
        self._left -= size

    def give(self, size: int) -> None:
        """These are free again."""
        self._left += size


class Memory:
    """Stores everything in this process, until the container ends. See `Store`."""

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget, self._clock = budget, clock
        self._found: dict[str, Any] = {}
        self._until: dict[str, float] = {}

    def get(self, key: str) -> bytes | None:
        found = self._live(key)
        if found is None or isinstance(found, bytes):
            return found
        raise HostError(f"the key holds a {_kind(found)}, not a value")

    def set(self, key: str, value: bytes, seconds: int) -> None:
        found = self._found.get(key)
        size = _size(key) + len(value) + _EACH
        if isinstance(found, bytes) and len(found) >= len(value):
            self.delete(key)  # which makes room enough
            self._budget.take(size)
        else:
            self._take(size)
            self.delete(key)
        self._found[key] = value
        if seconds:
            self._until[key] = self._clock() + seconds

    def add(self, key: str, value: int) -> int:
        before = self.get(key)
        try:
            total = int(before or b"0") + value
        except ValueError:
            raise HostError("the key holds a value that is no number") from None
        if not -(2**63) <= total < 2**63:
            raise HostError("the number would have more than 64 bits")
        until = self._until.get(key)
        self.set(key, str(total).encode(), 0)
        if until is not None:
            self._until[key] = until
        return total

    def delete(self, key: str) -> None:
        found = self._found.pop(key, None)
        self._until.pop(key, None)
        if found is not None:
            size = len(found) if isinstance(found, bytes) else sum(len(one) + _EACH for one in found)
            self._budget.give(_size(key) + _EACH + size)

    def exists(self, key: str) -> bool:
        return self._live(key) is not None

    def push(self, key: str, value: bytes) -> int:
        found = self._with(key, list, len(value) + _EACH)
        found.append(value)
        return len(found)

    def list_delete(self, key: str, value: bytes) -> int:
        found = self._of(key, list)
        left = [one for one in found if one != value]
        self._budget.give((len(found) - len(left)) * (len(value) + _EACH))
        found[:] = left
        self._drop_empty(key)
        return len(left)

    def range(self, key: str, start: int, stop: int) -> Sequence[bytes]:
        found = self._live(key)
        if found is None:
            return []
        if not isinstance(found, list):
            raise HostError(f"the key holds a {_kind(found)}, not a list")
        first = max(0, start + len(found)) if start < 0 else start
        last = max(-1, stop + len(found)) if stop < 0 else stop
        return found[first : last + 1]

    def set_add(self, key: str, value: bytes) -> int:
        found = self._of(key, dict)
        if value not in found:
            found = self._with(key, dict, len(value) + _EACH)
            found[value] = None
        return len(found)

    def set_remove(self, key: str, value: bytes) -> int:
        found = self._of(key, dict)
        if value in found:
            del found[value]
            self._budget.give(len(value) + _EACH)
            self._drop_empty(key)
        return len(found)

    def members(self, keys: Sequence[str], *, union: bool) -> Sequence[bytes]:
        sets: list[dict[bytes, None]] = []
        for key in keys:
            found = self._live(key)
            if found is not None and not isinstance(found, dict):
                raise HostError(f"the key holds a {_kind(found)}, not a set")
            sets.append(found or {})
        if union:
            return list({one: None for found in sets for one in found})
        return [one for one in (sets[0] if sets else ()) if all(one in found for found in sets[1:])]

    def _take(self, size: int) -> None:
        """Count these bytes. If there are too few left, drop the keys that have expired first.

        Raises:
            HostError: there are not so many left.
        """
        try:
            self._budget.take(size)
        except HostError:
            now = self._clock()
            for key in [key for key, until in self._until.items() if until <= now]:
                self.delete(key)
            self._budget.take(size)

    def _live(self, key: str) -> Any:
        if key in self._until and self._clock() >= self._until[key]:
            self.delete(key)
        return self._found.get(key)

    def _of(self, key: str, kind: type) -> Any:
        """The list or set of a key; an empty one, which is not kept, if there is no such key."""
        found = self._live(key)
        if found is None:
            return kind()
        if not isinstance(found, kind):
            raise HostError(f"the key holds a {_kind(found)}")
        return found

    def _with(self, key: str, kind: type, size: int) -> Any:
        """The same, kept from now on, once there is room for so many bytes in it."""
        self._of(key, kind)
        self._take(size if key in self._found else size + _size(key) + _EACH)
        return self._found.setdefault(key, kind())

    def _drop_empty(self, key: str) -> None:
        """Drop a key whose list or set has nothing in it any more, as redis does."""
        if key in self._found and not self._found[key]:
            self.delete(key)


def _size(key: str) -> int:
    """The most bytes that its letters take."""
    return len(key) if key.isascii() else 4 * len(key)


def _kind(found: Any) -> str:
    return "value" if isinstance(found, bytes) else "list" if isinstance(found, list) else "set"


def _count(number: int) -> dict[str, Any]:
    return {"newCount": number}


def _values(found: Sequence[bytes]) -> dict[str, Any]:
    return {"values": [_shown(one) for one in found]}


def _shown(value: bytes) -> str:
    """A value as text, which is what actors expect."""
    return value.decode(errors="replace")


def _keys(message: Any) -> list[str]:
    found = field(message, "keys")
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise BadMessage("expected keys to be a list of texts")
    if len(found) > _MOST_KEYS:
        raise BadMessage(f"expected at most {_MOST_KEYS} keys, found {len(found)}")
    return list(dict.fromkeys(found))
