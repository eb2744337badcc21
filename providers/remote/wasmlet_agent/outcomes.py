"""Work that goes on when the task that waits for it is cancelled."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Generic, TypeVar

import attrs

T = TypeVar("T")


@attrs.frozen
class Outcome(Generic[T]):
    """The result of some work: what it has returned, or the error that it has raised.

    A task returns this instead of raising. So an error does not end the task group, and nobody has to fetch it.
    """

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
