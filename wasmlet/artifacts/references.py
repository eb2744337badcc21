"""References: `registry:port/repository:tag@digest`, read as Docker and every Kubernetes runtime read them.

The first part is the registry if it contains a dot, a colon or a capital letter, or is `localhost`. Otherwise the
registry is Docker Hub, where a repository name of one part means `library/NAME`. Without a tag and a digest the tag is
`latest`; with both, only the digest counts. The grammar is that of the distribution project's `reference` package.
"""

from __future__ import annotations

import re

import attrs

from wasmlet.artifacts.errors import InvalidReference

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MAX_NAME = 255

_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)"
_REGISTRY = re.compile(rf"(?:{_HOST}(?:\.{_HOST})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_BARE_ID = re.compile(r"[0-9a-f]{64}")


@attrs.frozen
class Reference:
    """A reference, complete: what was left out of the text is filled in.

    Attributes:
        registry: host, perhaps with a port; `docker.io` for Docker Hub.
        repository: path within the registry.
        tag: None where only a digest was given.
        digest: `sha256:...` of the manifest, or None.
    """

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def wanted(self) -> str:
        """What the registry is asked for: the digest if there is one, otherwise the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    def at(self, digest: str) -> Reference:
        """A reference to the manifest with this digest in the same repository."""
        return attrs.evolve(self, tag=None, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"


def parse(text: str) -> Reference:
    """Read a reference.

    Raises:
        InvalidReference: the text is no reference; the message says which part is wrong.
    """

    def wrong(why: str) -> InvalidReference:
        shown = text if len(text) <= 300 else f"{text[:300]}..."
        return InvalidReference(f"image {shown!r}: {why}; expected [REGISTRY[:PORT]/]REPOSITORY[:TAG][@sha256:DIGEST]")

    if "://" in text:
        raise wrong(f"leave out {text.partition('://')[0][:20]}://")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise wrong("what follows @ is no digest (sha256: and 64 small hexadecimal digits)")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:  # the colon of a port
        name, colon, tag = rest, "", ""
    if colon and not _TAG.fullmatch(tag):
        raise wrong("the tag is none (letters, digits, _ . -, at most 128)")
    first, slash, path = name.partition("/")
    if slash and (any(c in ".:[" or c.isupper() for c in first) or first == "localhost"):
        registry, repository = first, path
    else:
        registry, repository = DEFAULT_REGISTRY, name
    if not _REGISTRY.fullmatch(registry) or int(_port(registry) or 0) > 65535:
        raise wrong(f"{registry!r} is no registry's host")
    if registry == f"index.{DEFAULT_REGISTRY}":
        registry = DEFAULT_REGISTRY
    if not _REPOSITORY.fullmatch(repository):
        raise wrong("the repository has to be small letters and digits, parted by / . _ or -")
    if not slash and _BARE_ID.fullmatch(name):
        raise wrong("64 hexadecimal digits are an image's id and no name")
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    if len(f"{registry}/{repository}") > MAX_NAME:
        raise wrong(f"the name has more than {MAX_NAME} characters")
    return Reference(registry, repository, tag or (None if digest else DEFAULT_TAG), digest or None)


def is_file(image: str) -> bool:
    """Whether an image has a URL scheme, as `file:///x.wasm`; then it is not a reference."""
    return re.match(r"[a-z]+://", image) is not None


def is_digest(text: object) -> bool:
    """Whether this is a digest of a supported algorithm (SHA-256 or SHA-512)."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def _port(registry: str) -> str:
    return registry.rpartition(":")[2] if re.search(r":[0-9]+\Z", registry) else ""
