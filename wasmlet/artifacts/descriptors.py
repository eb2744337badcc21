"""OCI descriptors, and how digests are computed.

A manifest refers to each piece of content by a descriptor, which has its media type, digest and size.
"""

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
        size: size of the content in bytes.
        platform: `os/architecture`, if an index states it; else None.
    """

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    platform: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The descriptor as JSON, in the form that manifests use."""
        content: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return content | ({"annotations": dict(self.annotations)} if self.annotations else {})


def read_descriptor(raw: Any, what: str) -> Descriptor:
    """Parse and check a descriptor.

    Args:
        raw: the JSON value.
        what: what the descriptor stands for, for the error message.

    Raises:
        BadContent: `raw` is not a descriptor.
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
    """The entries of a mapping whose values are strings; the others are left out."""
    return {k: v for k, v in raw.items() if isinstance(v, str)} if isinstance(raw, Mapping) else {}


def _platform(raw: Any) -> str | None:
    if not isinstance(raw, Mapping):
        return None
    return f"{raw.get('os') or '?'}/{raw.get('architecture') or '?'}"


def hasher(digest: str) -> _Hash:
    """A new hash object for the algorithm of this digest (`sha256:...`, `sha512:...`)."""
    return hashlib.new(digest.partition(":")[0])


def digest_of(data: bytes) -> str:
    """The SHA-256 digest of some bytes, in the form `sha256:...`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
