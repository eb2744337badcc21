"""`wascc:extras`: unique names, random numbers, and a number that goes up."""

from __future__ import annotations

import random
import uuid
from typing import Any

from ..capability import Context, HostError
from ..messages import both, field, number

OPERATION = "RequestGuid", "RequestRandom", "RequestSequence"
_MOST = 2**32 - 1


class Extras:
    """Answers one or more of three questions at a time."""

    def __init__(self, context: Context) -> None:
        self._sequence = 0
        self._random = random.SystemRandom()

    def call(self, binding: str, operation: str, message: Any) -> Any:
        """See `Capability`. Operations: `RequestGuid`, `RequestRandom`, `RequestSequence`."""
        if operation not in OPERATION:
            raise HostError(f"wascc:extras has no operation {operation[:80]!r}, only {', '.join(OPERATION)}")
        answer: dict[str, Any] = {"guid": None, "randomNumber": 0, "sequenceNumber": 0}
        if field(message, "guid"):
            answer["guid"] = str(uuid.uuid4())
        if field(message, "random"):
            low, high = number(message, "min", 0), number(message, "max", _MOST)
            if not 0 <= low <= high <= _MOST:
                raise HostError(f"expected 0 <= min <= max <= {_MOST}, found {low} and {high}")
            answer["randomNumber"] = self._random.randint(low, high)
        if field(message, "sequence"):
            answer["sequenceNumber"] = self._sequence
            self._sequence += 1
        return both(answer)
