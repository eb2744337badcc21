"""Descriptors: what a manifest says of each thing that it refers to, by digest; and how a digest is checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from wasmlet.artifacts.errors import BadContent
from wasmlet.artifacts.references import is_digest

if TYPE_CHECKING:
    from hashlib import _Hash


@attrs.frozen
class Descriptor:
    """A reference to content.

    Attributes:
        size: bytes.
        platform: `os/architecture` where an index says it.
    """

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    platform: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As a manifest has it."""
        content: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return content | ({"annotations": dict(self.annotations)} if self.annotations else {})


def read_descriptor(raw: Any, what: str) -> Descriptor:
    """Check a descriptor.

    Args:
        what: it is of, for the message.

    Raises:
        BadContent: it is none.
    """
    if not isinstance(raw, Mapping):
        raise BadContent(f"{what} is no descriptor")
    media_type, digest, size = raw.get("mediaType"), raw.get("digest"), raw.get("size")
    if not isinstance(media_type, str) or not media_type or len(media_type) > 255:
        raise BadContent(f"{what} has no media type")
    if not is_digest(digest):
        raise BadContent(f"{what} has no digest of a kind that can be checked (sha256, sha512)")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BadContent(f"{what} has no size")
    return Descriptor(media_type, str(digest), size, texts(raw.get("annotations")), _platform(raw.get("platform")))


def texts(raw: Any) -> dict[str, str]:
    """Those entries of a mapping whose values are text."""
    return {k: v for k, v in raw.items() if isinstance(v, str)} if isinstance(raw, Mapping) else {}


def _platform(raw: Any) -> str | None:
    if not isinstance(raw, Mapping):
        return None
    return f"{raw.get('os') or '?'}/{raw.get('architecture') or '?'}"


def hasher(digest: str) -> _Hash:
    """A fresh hash of the kind that this digest is of."""
    return hashlib.new(digest.partition(":")[0])


def digest_of(data: bytes) -> str:
    """SHA-256, as a descriptor has it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
