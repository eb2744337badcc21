"""Work that goes on where whoever waits for it leaves."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Generic, TypeVar

import attrs

T = TypeVar("T")


@attrs.frozen
class Outcome(Generic[T]):
    """What some work has returned or raised. A task that returns one neither ends its group nor has to be asked."""

    _value: T | None = None
    _error: Exception | None = None

    def get(self) -> T:
        """What it has returned.

        Raises:
            Exception: what it has raised.
        """
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # T may be a type that has None


async def outcome_of(work: Awaitable[T]) -> Outcome[T]:
    """Do the work; raises nothing but `CancelledError`."""
    try:
        return Outcome(await work)
    except Exception as error:
        return Outcome(error=error)
