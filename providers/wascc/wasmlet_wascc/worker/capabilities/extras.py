"""`wascc:extras`: unique names, random numbers, and a number that goes up.

Actors that were built in March 2020 (with version 0.5 of the Rust library for actors) ask with an enum: a list of one
map, from the number of the variant to its values. They expect the answer in that form.
"""

from __future__ import annotations

import random
import uuid
from typing import Any

import msgpack

from ..capability import Context, HostError
from ..messages import both, field, number

OPERATION = "RequestGuid", "RequestRandom", "RequestSequence"
_MOST = 2**32 - 1
_VARIANTS = (("guid", "guid"), ("sequence", "sequenceNumber"), ("random", "randomNumber"))
"""Of the enum, by their numbers: what is asked for, and the field of the answer."""


class Extras:
    """Answers one or more of three questions at a time."""

    def __init__(self, context: Context) -> None:
        self._sequence = 0
        self._random = random.SystemRandom()

    def call(self, binding: str, operation: str, message: Any) -> Any:
        """See `Capability`. Operations: `RequestGuid`, `RequestRandom`, `RequestSequence`."""
        if operation not in OPERATION:
            raise HostError(f"wascc:extras has no operation {operation[:80]!r}, only {', '.join(OPERATION)}")
        if not isinstance(message, list):
            return both(self._answer(message))
        variant, values = _variant(message)
        asked, answered = _VARIANTS[variant]
        limits = dict(zip(("min", "max"), values))  # noqa: B905 - Python 3.10
        # `encoded` gives numbers a sign, and serde takes no number of a variant that has one.
        packed: bytes = msgpack.packb([{variant: self._answer({asked: True, **limits})[answered]}])
        return packed

    def _answer(self, message: Any) -> dict[str, Any]:
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
        return answer


def _variant(message: list[Any]) -> tuple[int, list[Any]]:
    """The number of the variant, and its values.

    Raises:
        HostError: the message is no enum, or has another variant.
    """
    match [list(one.items()) for one in message if isinstance(one, dict)]:
        case [[(int(variant), None | [_, _] as values)]] if 0 <= variant < len(_VARIANTS):
            return variant, values or []
    raise HostError("expected one of the variants 0, 1 and 2 of a request, the last with two numbers")
