"""The errors of the API: `Status` objects, and `ApiError`, the exception that carries one.

Every module of the control plane raises `ApiError`, made by a function below, and `http.server` answers with it. Codes,
reasons and the shape of `details` are those of `metav1.Status`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from wasmlet.controlplane.storage.kinds import Kind

Object = dict[str, Any]
"""A Kubernetes object as JSON. An object in the store must never be changed: copy what you change."""


class ApiError(Exception):
    """The request is refused; `status` is the body of the answer and `code` its HTTP status."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Object | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after = retry_after

    @property
    def status(self) -> Object:
        body: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        details = dict(self.details or {})
        if self.retry_after is not None:
            details["retryAfterSeconds"] = self.retry_after
        if details:
            body["details"] = details
        body["code"] = self.code
        return body


@attrs.frozen
class Cause:
    """One error in an object; `reason` is a `metav1.CauseType`, `field` the path of the field."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    @classmethod
    def invalid(cls, field: str, value: object, message: str) -> Cause:
        shown = f'"{value}"' if isinstance(value, str) else json.dumps(value, default=str, separators=(",", ":"))
        return cls(field, f"Invalid value: {shown}: {message}")

    @classmethod
    def required(cls, field: str, message: str = "") -> Cause:
        return cls(field, "Required value" + (f": {message}" if message else ""), "FieldValueRequired")

    @classmethod
    def unsupported(cls, field: str, value: object, choices: Iterable[str]) -> Cause:
        shown = ", ".join(f'"{choice}"' for choice in choices)
        return cls(field, f'Unsupported value: "{value}": supported values: {shown}', "FieldValueNotSupported")

    @classmethod
    def forbidden(cls, field: str, message: str) -> Cause:
        return cls(field, f"Forbidden: {message}", "FieldValueForbidden")

    @classmethod
    def duplicate(cls, field: str, value: object) -> Cause:
        return cls(field, f'Duplicate value: "{value}"', "FieldValueDuplicate")

    @classmethod
    def not_found(cls, field: str, value: object) -> Cause:
        return cls(field, f'Not found: "{value}"', "FieldValueNotFound")


def _details(kind: Kind, name: str) -> Object:
    details: Object = {"name": name} if name else {}
    if kind.group:
        details["group"] = kind.group
    return details


def success(kind: Kind, name: str, uid: str) -> Object:
    """The answer to a finished delete that returns no object."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {**_details(kind, name), "kind": kind.plural, "uid": uid},
    }


def not_found(kind: Kind, name: str) -> ApiError:
    message = f'{kind.qualified} "{name}" not found'
    return ApiError(404, "NotFound", message, details={**_details(kind, name), "kind": kind.plural})


def no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", details={})


def already_exists(kind: Kind, name: str) -> ApiError:
    message = f'{kind.qualified} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details={**_details(kind, name), "kind": kind.plural})


def conflict(kind: Kind, name: str, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {kind.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, details={**_details(kind, name), "kind": kind.plural})


def modified(kind: Kind, name: str) -> ApiError:
    return conflict(
        kind,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def invalid(kind: Kind, name: str, causes: list[Cause]) -> ApiError:
    """422 with every cause; the messages are those of the API server."""
    lines = [f"{cause.field}: {cause.message}" for cause in causes]
    text = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    dotted = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    details: Object = {**_details(kind, name), "kind": kind.kind}
    details["causes"] = _causes(causes)
    return ApiError(422, "Invalid", f'{dotted} "{name}" is invalid: {text}', details=details)


def _causes(causes: Sequence[Cause]) -> list[Object]:
    return [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def forbidden(kind: Kind | None, name: str, why: str, causes: Sequence[Cause] = ()) -> ApiError:
    if kind is None:
        return ApiError(403, "Forbidden", f"forbidden: {why}", details={})
    message = f'{kind.qualified} "{name}" is forbidden: {why}' if name else f"{kind.qualified} is forbidden: {why}"
    details = {**_details(kind, name), "kind": kind.plural, **({"causes": _causes(causes)} if causes else {})}
    return ApiError(403, "Forbidden", message, details=details)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def method_not_allowed() -> ApiError:
    return ApiError(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource", details={}
    )
