"""Converts errors to HTTP answers and back.

So an error that a provider raises at an agent is raised again by `RemoteProvider` on the other side.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from wasmlet.errors import (
    InvalidInput,
    MissingReference,
    NotFound,
    NotYet,
    Refused,
    Rejected,
    Unsupported,
    WasmletError,
)
from wasmlet_agent.protocol.codec import decode

_MESSAGE = 4096
"""Characters of an error's text that are sent."""


class Stale(WasmletError):
    """The request is older than one that the agent has taken, or its session is over."""


class SessionOver(Stale):
    """Another node loop has taken the agent over."""


class LateDuplicate(Stale):
    """A session cannot be begun, because the newest one is not that which the request names.

    The request was held back on its way, or its sender does not know the newest one yet.

    Args:
        session: the number of the newest session.
        claimant: who has begun it.
    """

    def __init__(self, message: str, session: int = 0, claimant: str = "") -> None:
        super().__init__(message)
        self.session = session
        self.claimant = claimant


class Unclaimed(Stale):
    """The agent has begun no session as new as the request's: what it had on its disk is gone."""


class OtherNode(WasmletError):
    """The agent belongs to a Node of another name."""


class Unauthorized(WasmletError):
    """The request shows neither a client certificate that the agent trusts nor its token."""


class TooLarge(InvalidInput):
    """The body has more bytes than the agent takes."""


class Starting(WasmletError):
    """The agent's provider has not started, or does not have all its pods again yet."""


STATUSES: Mapping[str, int] = {
    "InvalidInput": 400,
    "Unauthorized": 401,
    "NotFound": 404,
    "OtherNode": 409,
    "SessionOver": 409,
    "Stale": 409,
    "Unclaimed": 409,
    "LateDuplicate": 412,
    "TooLarge": 413,
    "MissingReference": 422,
    "NotYet": 422,
    "Refused": 422,
    "Rejected": 422,
    "Unsupported": 501,
    "Starting": 503,
}
"""The HTTP status of each error; anything else is a 500 with the error `Failed`."""

_PLAIN: Mapping[str, type[WasmletError]] = {
    "InvalidInput": InvalidInput,
    "NotFound": NotFound,
    "OtherNode": OtherNode,
    "SessionOver": SessionOver,
    "Stale": Stale,
    "Starting": Starting,
    "TooLarge": TooLarge,
    "Unauthorized": Unauthorized,
    "Unclaimed": Unclaimed,
    "Unsupported": Unsupported,
}


@attrs.frozen
class Failure:
    """The body of an answer that is an error."""

    error: str
    message: str = ""
    field: str = ""
    container: str | None = None
    reason: str = ""
    session: int = 0
    claimant: str = ""


def failure_of(error: Exception) -> tuple[int, Failure]:
    """The HTTP status and the body for an error. The text is the error's own: providers name no secret in it."""
    name = type(error).__name__
    message = str(error)[:_MESSAGE] or name
    if name not in STATUSES:
        return 500, Failure("Failed", message)
    if isinstance(error, Refused):
        if not isinstance(error, MissingReference):
            message = message.removeprefix(f"{error.field}: ")
        return STATUSES[name], Failure(name, message, error.field, error.container, error.reason)
    if isinstance(error, LateDuplicate):
        return STATUSES[name], Failure(name, message, session=error.session, claimant=error.claimant)
    if isinstance(error, Rejected | NotYet):
        return STATUSES[name], Failure(name, message, reason=error.reason)
    return STATUSES[name], Failure(name, message)


def error_of(failure: Failure) -> WasmletError:
    """The error that the other side has raised."""
    if failure.error == "Refused":
        return Refused(failure.field, failure.message, container=failure.container, reason=failure.reason)
    if failure.error == "MissingReference":
        return MissingReference(failure.field, failure.message, container=failure.container, reason=failure.reason)
    if failure.error == "NotYet":
        return NotYet(failure.message, failure.reason)
    if failure.error == "Rejected":
        return Rejected(failure.reason, failure.message)
    if failure.error == "LateDuplicate":
        return LateDuplicate(failure.message, failure.session, failure.claimant)
    return _PLAIN.get(failure.error, WasmletError)(failure.message)


def error_in(status: int, body: bytes) -> WasmletError:
    """The error that an HTTP answer stands for; one that is not of this protocol is told with its status."""
    try:
        return error_of(decode(Failure, body))
    except InvalidInput:
        return WasmletError(f"expected an answer of an agent, found HTTP {status}")
