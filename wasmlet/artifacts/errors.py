"""What can go wrong between a reference and a module on disk.

Each error says the cause. `errors_name` puts the reference in front of it once, where a pull or a push begins. `reason`
is what a kubelet shows as the container's `waiting.reason`. No message holds a credential, a token or the query of an
address, because a registry that redirects puts signatures there.
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
    """The registry wants other credentials, or any (401), or does not let this user do it (403).

    Args:
        forbidden: it knows who asks, and says no.
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
    """What the registry sent is not what it should be: wrong digest or size, no manifest, no module."""


class StoreError(ArtifactError):
    """The node's own disk failed, or holds what it should not."""


@contextlib.contextmanager
def errors_name(reference: object) -> Iterator[None]:
    """Put this reference in front of the message of each error."""
    try:
        yield
    except ArtifactError as error:
        error.args = (f"{reference}: {error}",)
        raise
    except OSError as error:
        raise StoreError(f"{reference}: {error.strerror or error}") from error
