"""One class for each kind of answer that the API server gives instead of what was asked for.

`from_answer` reads the `Status` object of a failed request; `Unreachable` stands for no answer at all. A caller names
the classes that mean something to it and lets `ApiError` be retried.
"""

from __future__ import annotations

from typing import Any

import orjson

from wasmlet.errors import WasmletError


class ApiError(WasmletError):
    """The API server answered with an error, or did not answer.

    Attributes:
        status: HTTP status; 0 where there was no answer.
        reason: the API's word, as `AlreadyExists`.
        details: the `details` of the `Status` object.
        retry_after: how many seconds the server asks to wait before the next try; 0 where it asks for nothing.
    """

    def __init__(self, status: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.details = details or {}
        self.retry_after = 0.0

    def caused_by(self, reason: str) -> bool:
        """Whether the answer names a cause of that kind (`metav1.CauseType`)."""
        causes = self.details.get("causes")
        return isinstance(causes, list) and any(isinstance(one, dict) and one.get("reason") == reason for one in causes)


class BadRequest(ApiError):
    """400: the request is malformed."""


class Unauthorized(ApiError):
    """401: the credentials are not, or no longer, accepted."""


class Forbidden(ApiError):
    """403: this identity may not do that."""


class ObjectNotFound(ApiError):
    """404: there is no such object (or no such kind of object)."""


class Conflict(ApiError):
    """409: the object is another one, or has another version, than the request expected."""


class AlreadyExists(Conflict):
    """409: an object of that name exists."""


class Gone(ApiError):
    """410: the resource version is too old to go on from; list again."""


class Invalid(ApiError):
    """422: the object breaks a rule of the API."""


class TooManyRequests(ApiError):
    """429: slow down; `retry_after` says by how many seconds, and is 1 where the server does not."""


class ServerError(ApiError):
    """5xx: the server could not do it now."""


class Unreachable(ApiError):
    """No answer: no connection, a broken one, or time ran out."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "Unreachable", message)


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: ObjectNotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


LONGEST_WAIT_SECONDS = 300.0
"""A server that asks for more is asked again after this time: a node that slept for a day would be lost."""


def from_status(status: Any, code: int = 0, retry_after: str | None = None) -> ApiError:
    """The error that a `Status` object stands for.

    Args:
        status: the decoded `Status`; whatever else a server sends there is tolerated.
        code: the HTTP status, where the object has none (an ERROR event of a watch has it in the object).
        retry_after: the header of that name, in seconds.
    """
    found = status if isinstance(status, dict) else {}
    if isinstance(found.get("code"), int):
        code = found["code"] or code
    reason = str(found.get("reason") or "")
    details = found["details"] if isinstance(found.get("details"), dict) else {}
    kind = _BY_STATUS.get(code, ServerError if code >= 500 else ApiError)
    if kind is Conflict and reason == "AlreadyExists":
        kind = AlreadyExists
    error = kind(code, reason, str(found.get("message") or f"HTTP {code}"), details)
    wait = _seconds(retry_after or details.get("retryAfterSeconds"))
    error.retry_after = wait if wait is not None else 1.0 if kind is TooManyRequests else 0.0
    return error


def _seconds(wait: Any) -> float | None:
    """How long a server asks to wait; None where it does not, or not in seconds."""
    try:
        seconds = float(wait)
    except (TypeError, ValueError):
        return None
    return min(seconds, LONGEST_WAIT_SECONDS) if seconds >= 0 else None  # a "nan" is neither


def from_answer(code: int, body: bytes, retry_after: str | None = None) -> ApiError:
    """The error of an HTTP answer; a body that is not a `Status` becomes the message, shortened."""
    try:
        status = orjson.loads(body)
    except ValueError:
        status = None
    if not isinstance(status, dict):
        text = body[:200].decode("utf-8", "replace").strip()
        status = {"message": f"HTTP {code}: {text}" if text else f"HTTP {code}"}
    return from_status(status, code, retry_after)
