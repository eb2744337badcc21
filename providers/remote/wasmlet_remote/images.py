"""Bringing images to an agent that reaches no registry (`--push-images`).

The node loop asks the registry, with the pod's credentials, which manifest an image has; the agent says which blobs of
it are missing, and gets these in pieces. No credential goes there, and no compiled code: the agent compiles by itself.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs
from wasmlet_agent.protocol import BLOB_PIECE
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.messages import BlobAnswer, ImageAnswer, ImageRequest

from wasmlet import Clock, Inputs, NotYet, Pod, PodEvent, Unsupported, WasmletError
from wasmlet.artifacts.credentials import Keychain, Keychains, Keyring, pull_secrets
from wasmlet.artifacts.errors import ArtifactError, Unavailable
from wasmlet.artifacts.helpers import DockerConfig, docker_config
from wasmlet.artifacts.pull import Puller, Resolved
from wasmlet.artifacts.references import is_file, parse
from wasmlet.artifacts.store import Store
from wasmlet.concurrency import in_thread
from wasmlet.model.inputs import HandedImage
from wasmlet_remote.bodies import Body
from wasmlet_remote.config import PushConfig

WAIT_SECONDS = 45.0
"""How long one call waits for the images of a pod. They are still sent after that, and the next call waits again."""
BRING_SECONDS = 3600.0
"""How long one image may take."""
FRESH_SECONDS = 10.0
"""For so long an answer of a registry is used again, for other pods with the same credentials."""
MOST_KNOWN = 1000
_AT_ONCE = 2
_ROUNDS = 8
"""How often an agent may find that blobs are missing: a new image needs two rounds, and blobs may go meanwhile."""
_BYTES = {"Content-Type": "application/octet-stream"}
_JSON = {"Content-Type": "application/json"}

Put = Callable[[str, Body, Mapping[str, str]], Awaitable[bytes]]
"""Makes a PUT to the agent (path, body, query), however long that is away."""
Say = Callable[[PodEvent], None]


@attrs.frozen
class Wanted:
    """An image that a pod needs.

    Attributes:
        name: as the manifest has it.
        files: whether it is mounted, and not run.
        field: of the container that runs it, for events.
    """

    name: str
    files: bool
    field: str = ""


def wanted(pod: Pod) -> Iterator[Wanted]:
    """The images of registries that a pod may have pulled."""
    kinds = {"containers": pod.containers, "initContainers": pod.init_containers}
    for kind, containers in {**kinds, "ephemeralContainers": pod.ephemeral_containers}.items():
        for one in containers:
            if not is_file(one.image) and one.raw.get("imagePullPolicy") != "Never":
                yield Wanted(one.image, False, f"spec.{kind}{{{one.name}}}")
    for volume in pod.spec.get("volumes") or ():
        source = volume.get("image")
        if source is not None and source.get("pullPolicy") != "Never":
            yield Wanted(str(source.get("reference") or ""), True)


@attrs.frozen
class _Key:
    """What may be brought once for several pods."""

    name: str
    files: bool
    keyring: Keyring


@attrs.define(eq=False)
class _Bringing:
    """An image that is on its way; bytes of its blobs that are there, and of those that are known to be missing."""

    task: asyncio.Task[HandedImage] | None = None
    there: int = 0
    whole: int = 0


class Images:
    """Brings images to one agent; an async context manager.

    Args:
        directory: where blobs are on their way.
        say: tells an event about a pod.
    """

    def __init__(
        self, config: PushConfig, directory: Path, put: Put, say: Say, clock: Clock, rng: random.Random
    ) -> None:
        self._auth_file = config.registry_auth_file
        self._store = Store(directory, clock)
        self._puller = Puller(self._store, config, clock, rng=rng)
        self._put = put
        self._say = say
        self._clock = clock
        self._node: Keychain = DockerConfig()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._underway: dict[_Key, _Bringing] = {}
        self._brought: dict[_Key, tuple[float, HandedImage]] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await in_thread(self._store.prepare)
        if self._auth_file is not None:
            self._node = await in_thread(docker_config, self._auth_file)
        await self._stack.enter_async_context(self._puller)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [bringing.task for bringing in self._underway.values() if bringing.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._stack.aclose()

    def forget(self) -> None:
        """Forget which images the agent has: it may have lost them."""
        self._brought.clear()

    async def of(self, pod: Pod, inputs: Inputs, known: Mapping[str, HandedImage]) -> dict[str, HandedImage]:
        """The images of a pod, which are at the agent then.

        Args:
            known: those that were brought for it before: they stay what they were then.

        Raises:
            NotYet: one cannot be had, or takes long.
        """
        names = [str(one.get("name") or "") for one in pod.spec.get("imagePullSecrets") or ()]
        keyring = pull_secrets(pod.namespace, filter(None, names), inputs.secrets).keyring
        found = {one.name: known[one.name] for one in wanted(pod) if one.name in known}
        until = self._clock.monotonic() + WAIT_SECONDS
        for one in wanted(pod):
            if one.name not in known:
                found[one.name] = await self._one(pod, one, keyring, until)
        return found

    async def _one(self, pod: Pod, one: Wanted, keyring: Keyring, until: float) -> HandedImage:
        key = _Key(one.name, one.files, keyring)
        when, image = self._brought.get(key, (0.0, None))
        if image is not None and self._clock.monotonic() - when < FRESH_SECONDS:
            return image
        bringing = self._underway.get(key)
        if bringing is None:
            bringing = self._underway[key] = _Bringing()
            bringing.task = asyncio.create_task(self._bring(key, bringing), name=f"image {one.name}")
            bringing.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may ask
        self._say(PodEvent(pod.key, "Pulling", f'Pulling image "{one.name}"', container_field=one.field))
        assert bringing.task is not None
        left = max(0.0, until - self._clock.monotonic())
        done, _ = await asyncio.wait([bringing.task], timeout=left)
        if not done:
            text = f"{bringing.there} of {bringing.whole} bytes are there"
            raise NotYet(f'image "{one.name}" is on its way to the agent: {text}', "ContainerCreating")
        if self._underway.get(key) is bringing:
            del self._underway[key]
        try:
            image = await bringing.task
        except Unsupported:
            raise
        except WasmletError as error:
            text, reason = f'Failed to pull image "{one.name}": {error}', getattr(error, "reason", "ErrImagePull")
            raise NotYet(text, reason) from error
        text = f'Successfully brought image "{one.name}" to the agent'
        self._say(PodEvent(pod.key, "Pulled", text, container_field=one.field))
        if len(self._brought) >= MOST_KNOWN:
            self._brought.clear()
        self._brought[key] = (self._clock.monotonic(), image)
        return image

    async def _bring(self, key: _Key, bringing: _Bringing) -> HandedImage:
        before = self._brought.get(key)
        async with self._turns:
            try:
                async with asyncio.timeout(BRING_SECONDS):
                    keychain = Keychains((key.keyring, self._node))
                    found = await self._puller.resolve(parse(key.name), keychain, key.files)
                    image = HandedImage(found.document.digest, found.trusted)
                    await self._send(key, found, image, bringing)
                    return image
            except Unavailable:
                if before is None:
                    raise
                return before[1]  # as a kubelet goes on with what it has pulled
            except TimeoutError:
                raise ArtifactError(f"took longer than the {BRING_SECONDS:g} s allowed") from None

    async def _send(self, key: _Key, found: Resolved, image: HandedImage, bringing: _Bringing) -> None:
        """Have the agent take the image, with all blobs that it lacks."""
        request = Body(encode(ImageRequest(key.name, image, key.files)), _JSON, "")
        blobs = {one.digest: one for one in (found.manifest.config, *found.manifest.layers)}
        for _ in range(_ROUNDS):
            missing = decode(ImageAnswer, await self._put("/images", request, {})).missing
            if not missing:
                return
            bringing.whole = bringing.there + sum(blobs[one].size for one in missing if one in blobs)
            for digest in missing:
                with self._store.part(digest) as part:
                    if digest == found.document.digest:
                        await part.write(found.document.data)
                    elif (blob := blobs.get(digest)) is not None:
                        await found.session.blob(blob, part, lambda size: None)
                        part.check()
                    else:
                        raise ArtifactError(f"the agent asks for {digest[:100]}, which is no part of the image")
                    await self._send_blob(digest, part.descriptor, part.size, bringing)
        raise ArtifactError(f"the agent still lacks parts of it, having had them {_ROUNDS} times")

    async def _send_blob(self, digest: str, descriptor: int, size: int, bringing: _Bringing) -> None:
        began, here, last = bringing.there, -1, 0
        while True:
            piece = await in_thread(os.pread, descriptor, BLOB_PIECE, here) if here >= 0 else b""
            query = {"size": str(size), "offset": str(max(here, 0))}
            answer = decode(BlobAnswer, await self._put(f"/blobs/{digest}", Body(piece, _BYTES, ""), query))
            last, here = here, answer.here
            if here == size:
                bringing.there = began + size
                return
            if not 0 <= here < size or here == last:
                raise ArtifactError(f"the agent has {here} of {size} bytes of {digest}, and takes no more")
            bringing.there = began + here
