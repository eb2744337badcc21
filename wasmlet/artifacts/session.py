"""A session: requests about one repository, at one endpoint, with one credential. It gets manifests and blobs.

Temporary failures (status 429 or 5xx, a broken connection) are retried, after the pause that the registry asks for. The
download of a blob then continues where it stopped. Everything that arrives is checked against its digest, here or in
the store's `Part`.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import attrs
import httpx

from wasmlet.artifacts.credentials import Credential
from wasmlet.artifacts.descriptors import Descriptor, digest_of, hasher
from wasmlet.artifacts.errors import BadContent, Unavailable
from wasmlet.artifacts.hosts import Endpoint
from wasmlet.artifacts.http import Content, Http, body, chunks
from wasmlet.artifacts.references import is_digest
from wasmlet.artifacts.tokens import TokenRequest, Tokens, challenges
from wasmlet.clock import Backoff, Clock

MAX_MANIFEST = 4 * 1024 * 1024
"""Bytes; the distribution specification lets registries refuse larger ones."""

TRIES = 4
PAUSES = Backoff(0.5, 15.0)
_BUFFER = 512 * 1024
_LONGEST_TYPE = 255
"""Characters of a media type (RFC 6838)."""
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)

T = TypeVar("T")
Progress = Callable[[int], None]


class Sink(Protocol):
    """Where the bytes of a blob are written to, in order (`files.Part`)."""

    @property
    def size(self) -> int: ...

    async def write(self, data: bytes) -> None: ...

    async def restart(self) -> None: ...


class Blobs(Protocol):
    """A source of blobs: a `Session`, for example."""

    @property
    def credential(self) -> Credential | None: ...

    async def blob(self, wanted: Descriptor, sink: Sink, progress: Progress) -> None: ...


@attrs.frozen
class Document:
    """A manifest or an index, checked against its digest.

    Attributes:
        media_type: the media type that the registry states; "" if it states none.
    """

    data: bytes
    digest: str
    media_type: str


@attrs.frozen
class SessionServices:
    """The services that all sessions share."""

    http: Http
    tokens: Tokens
    clock: Clock
    rng: random.Random


@attrs.frozen
class Session:
    """Requests about one repository, with one credential.

    Attributes:
        actions: the permissions to ask the token server for: `pull` or `pull,push`.
    """

    services: SessionServices
    endpoint: Endpoint
    repository: str
    credential: Credential | None
    actions: str = "pull"

    async def manifest(self, wanted: str, accept: str = _ACCEPT) -> Document:
        """Get the manifest or index for a tag or a digest.

        Raises:
            ArtifactError: the registry does not give it, or its content does not match its digest.
        """

        async def once() -> Document:
            async with self.request("GET", f"manifests/{wanted}", headers={"Accept": accept}) as response:
                data = await body(response, MAX_MANIFEST)
                kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()[:_LONGEST_TYPE]
                stated = response.headers.get("Docker-Content-Digest", "")
            promised = wanted if is_digest(wanted) else stated if is_digest(stated) else None
            if promised is not None:
                _check(data, promised, f"the manifest {wanted}", kind)
            return Document(data, wanted if is_digest(wanted) else digest_of(data), kind)

        return await self.with_retries(once)

    async def blob(self, wanted: Descriptor, sink: Sink, progress: Progress) -> None:
        """Download a blob into the sink; the caller checks its digest.

        Args:
            progress: called with how many bytes have arrived.

        Raises:
            ArtifactError: the registry does not give it, or it is longer than its descriptor says.
        """
        await self.with_retries(lambda: self._rest_of(wanted, sink, progress))

    async def _rest_of(self, wanted: Descriptor, sink: Sink, progress: Progress) -> None:
        what = f"blob {wanted.digest}"
        headers = {"Range": f"bytes={sink.size}-"} if sink.size else {}
        async with self.request("GET", f"blobs/{wanted.digest}", headers=headers, also=(206, 416)) as response:
            if response.status_code == 416 or not _continues(response, sink.size, wanted.size):
                await sink.restart()
                if response.status_code != 200:
                    raise Unavailable(f"{self.endpoint.name} sent another part of {what} than it was asked for")
            stated = response.headers.get("Content-Length", "")
            if stated.isdecimal() and int(stated) != wanted.size - sink.size:
                whole = int(stated) + sink.size
                raise BadContent(f"{what} has {whole} bytes at {self.endpoint.name}; its descriptor says {wanted.size}")
            await self._copy(response, wanted, sink, progress)
        if sink.size != wanted.size:
            raise Unavailable(f"{what} ended after {sink.size} of {wanted.size} bytes")

    async def _copy(self, response: httpx.Response, wanted: Descriptor, sink: Sink, progress: Progress) -> None:
        waiting = bytearray()

        async def flush() -> None:
            await sink.write(bytes(waiting))
            waiting.clear()
            progress(sink.size)

        try:
            async with contextlib.aclosing(chunks(response)) as parts:
                async for chunk in parts:
                    waiting += chunk
                    if sink.size + len(waiting) > wanted.size:
                        raise BadContent(
                            f"blob {wanted.digest} is longer at {self.endpoint.name} than the {wanted.size} bytes "
                            "that its descriptor says"
                        )
                    if len(waiting) >= _BUFFER:
                        await flush()
        except Unavailable:
            await flush()  # so that the next try continues from there
            raise
        await flush()

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        path: str | httpx.URL,
        *,
        headers: Mapping[str, str] | None = None,
        also: tuple[int, ...] = (),
        content: Content | None = None,
        raw: bytes | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request, with authentication if the registry asks for it, and yield the successful response.

        Args:
            path: a path below the repository, or a URL that the registry gave.
            also: statuses that count as success, in addition to 200.

        Raises:
            ArtifactError: the request failed.
        """
        base = await self.services.http.base(self.endpoint)
        url = path if isinstance(path, httpx.URL) else base.join(f"{self.repository}/{path}")
        ours = (url.scheme, url.netloc) == (base.scheme, base.netloc)
        token_request = TokenRequest(base, f"repository:{self.repository}:{self.actions}", self.credential)
        authorization = self.services.tokens.known(token_request) if ours else None
        for last in (False, True):
            wanted = None
            async with self.services.http.answer(
                method, url, headers=headers or {}, authorization=authorization, content=content, raw=raw
            ) as response:
                theirs = (response.url.scheme, response.url.netloc) != (base.scheme, base.netloc)
                if response.status_code == 401 and not last and ours and not theirs:
                    wanted = challenges(response.headers.get_list("WWW-Authenticate"))
                if wanted is None:
                    if response.status_code not in (200, *also):
                        what = _what(path, self.repository)
                        raise await self.services.http.error_of(response, url, what, self.credential)
                    yield response
                    return
            authorization = await self.services.tokens.obtain(token_request, wanted)

    async def with_retries(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work. If it raises `Unavailable`, try again after a pause, `TRIES` times in all."""
        pauses = PAUSES.pauses(self.services.rng)
        for _ in range(TRIES - 1):
            try:
                return await work()
            except Unavailable as error:
                pause = max(next(pauses), error.after or 0.0)
            await self.services.clock.sleep(pause)
        return await work()


def _what(path: str | httpx.URL, repository: str) -> str:
    return "an upload" if isinstance(path, httpx.URL) else f"{repository}/{path.partition('?')[0]}"


def _continues(response: httpx.Response, offset: int, size: int) -> bool:
    """Whether the response's body begins at this offset of the blob (`Content-Range`)."""
    if response.status_code == 200:
        return offset == 0
    found = re.fullmatch(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", response.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == offset and found[3] in ("*", str(size))


def _check(data: bytes, digest: str, what: str, kind: str) -> None:
    found = hasher(digest)
    found.update(data)
    if found.hexdigest() != digest.partition(":")[2]:
        algorithm = digest.partition(":")[0]
        hint = f" (it sent {kind})" if kind and "json" not in kind else ""
        raise BadContent(f"{what} has another digest: expected {digest}, found {algorithm}:{found.hexdigest()}{hint}")
