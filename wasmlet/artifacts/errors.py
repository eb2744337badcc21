"""The errors of pulling, pushing and reading modules.

Each message states the cause. `errors_name` adds the image reference in front of it, once per pull or push. `reason` is
what a kubelet shows as `waiting.reason` of the container. No message contains a credential, a token or the query part
of a URL, because registries put signatures there when they redirect.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from wasmlet.errors import WasmletError


class ArtifactError(WasmletError):
    """A module cannot be pulled, pushed or read."""

    reason = "ErrImagePull"


class InvalidReference(ArtifactError):
    """The text is no reference to an image."""

    reason = "InvalidImageName"


class Denied(ArtifactError):
    """The registry refuses the credentials, or asks for some (401), or forbids this user to do it (403).

    Args:
        forbidden: the credentials are valid, but the user has no permission (403).
    """

    def __init__(self, message: str, *, forbidden: bool = False) -> None:
        super().__init__(message)
        self.forbidden = forbidden


class Absent(ArtifactError):
    """The registry has no such repository, tag or blob (404)."""


class Unavailable(ArtifactError):
    """The registry cannot be reached or says that it cannot answer now; another try may succeed.

    Args:
        after: seconds after which the registry wants to be asked again (Retry-After).
    """

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class BadContent(ArtifactError):
    """The content is wrong: another digest or size than stated, not a manifest, or not a module."""


class StoreError(ArtifactError):
    """The store on this node's disk failed, or has unexpected content."""


@contextlib.contextmanager
def errors_name(reference: object) -> Iterator[None]:
    """Put the image reference in front of the message of every `ArtifactError` that the block raises."""
    try:
        yield
    except ArtifactError as error:
        error.args = (f"{reference}: {error}",)
        raise
    except OSError as error:
        raise StoreError(f"{reference}: {error.strerror or error}") from error
