"""Names of events: the object's name and the time, so that events sorted by name are sorted by time, too.

client-go names them the same way (`GenerateEventName`: NAME.<nanoseconds since 1970, in hexadecimal>). `kubectl get
events` keeps the API server's order, which is that of names; `kubectl describe` sorts by `lastTimestamp`, which has
whole seconds, and keeps that order among the events of one second.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAME_BYTES = 253
"""The API server refuses longer names."""


class EventNames:
    """Makes names, each later than the one before, also where the clock stands still or is set back."""

    def __init__(self) -> None:
        self._last = 0

    def next(self, name: str, moment: datetime) -> str:
        """The name of an event about the object `name` that happened at `moment`."""
        nanoseconds = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
        self._last = max(self._last + 1, nanoseconds)
        end = f".{self._last:x}"
        return name[: _NAME_BYTES - len(end)].rstrip("-.") + end
