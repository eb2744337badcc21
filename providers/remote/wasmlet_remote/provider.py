"""`RemoteProvider`: each call of a provider is a request to an agent."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import attrs
import orjson
from wasmlet_agent.protocol import BATCHED_DELETES, BATCHED_FORGETS, BATCHES, LARGE, SEQUENCE_HEADER
from wasmlet_agent.protocol.failures import SessionOver, Stale, Starting, Unclaimed
from wasmlet_agent.protocol.messages import ListedPod, PodList

from wasmlet import (
    Change,
    Channel,
    Clock,
    ConfigError,
    Figure,
    Inputs,
    LogOptions,
    NodeContext,
    NodeStatus,
    NotFound,
    NotYet,
    Pod,
    PodKey,
    PodRecord,
    PodStatus,
    ProbeCount,
    Provider,
    Streams,
    SystemClock,
    Unsupported,
    WasmletError,
)
from wasmlet.clock import Retries
from wasmlet.concurrency import in_thread
from wasmlet.model.inputs import HandedImage
from wasmlet_remote.batches import Batches, Order, create, delete, forget
from wasmlet_remote.bodies import Body, body_of
from wasmlet_remote.changes import Follower
from wasmlet_remote.config import Config as Settings
from wasmlet_remote.link import Away, Link, Params, Transports, Untrusted, direct, understood
from wasmlet_remote.mailbox import Mailbox
from wasmlet_remote.session import RETRIES, Sessions
from wasmlet_remote.streams import attached, forwarded, log_of, until

if TYPE_CHECKING:
    from wasmlet_remote.images import Images

T = TypeVar("T")

REPEAT_SECONDS = 5.0
"""How often an agent is asked again to end a pod whose end it has not told."""
FORGET_SECONDS = 60.0
"""So long after a pod's end was reported here, the agent may forget its last status: by then the API server has it."""
FORGETS_AT_ONCE = 8
"""Requests to forget that may be on their way to an agent that takes one pod in each."""
MOST_STREAMS = 200
"""Logs, execs, attachments and port-forwards at once over the links of a host, of which an agent makes 256: the others
are for the node loop itself."""
FIRST_BYTE_SECONDS = 30.0
"""How long a log that is not followed may be silent."""


class RemoteProvider(Provider[Settings]):
    """Its pods run where an agent is.

    Calls that change something wait for the agent while it is away. What the agent tells (statuses, ends, the node) is
    read from one stream, which goes on where it broke off.

    Args:
        transports: makes what carries requests to the agent; without it, connections to the endpoint.
    """

    name: ClassVar[str] = "remote"

    def __init__(
        self,
        config: Settings | None = None,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        transports: Transports | None = None,
    ) -> None:
        super().__init__(config)
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._transports = transports
        self._supported: frozenset[str] = frozenset()
        self._sequence = itertools.count(1)
        self._lacking: set[str] = set()
        """UIDs of pods that the agent holds without all that they were handed over with."""
        self._told: dict[str, float] = {}
        """UIDs of pods whose end the node loop has been told, and when."""
        self._images: Images | None = None
        self._handed: dict[str, Mapping[str, HandedImage]] = {}
        """The images that were brought for each pod, by UID."""
        self._creates = Batches(self, "/pods", self._sequence)
        self._deletes = Batches(self, "/deletes", self._sequence)
        self._forgets = Batches(self, "/forgets", self._sequence)
        self._forgetting = asyncio.Semaphore(FORGETS_AT_ONCE)
        self._following: asyncio.Task[None] | None = None
        self._link: Link | None = None

    def supports(self, call: str) -> bool:
        return call in self._supported

    async def check(self) -> None:
        await asyncio.to_thread(direct, self.config)

    async def start(self, context: NodeContext) -> None:
        given = self._transports
        transports, token = (given, "") if given is not None else await asyncio.to_thread(direct, self.config)
        most_streams = MOST_STREAMS if given is not None else None
        link = self._link = Link(self.config.endpoint, transports, self.config.connections, token, most_streams)
        sessions = Sessions(link, context, self._clock, self._rng)
        answer = await sessions.begin()
        self._supported = frozenset(answer.supports)
        self._mailbox = Mailbox(1000 + 10 * context.max_pods)
        self._follower = Follower(link, sessions, self._mailbox, self._clock, self._rng)
        if self.config.push_images:
            await self._bring_images(context)
        self._following = asyncio.create_task(self._follow(), name=f"agent {link.url}")

    async def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._images is not None:
            await self._images.__aexit__(None, None, None)
        if self._link is not None:
            await self._link.close()

    async def _bring_images(self, context: NodeContext) -> None:
        if "take_image" not in self._supported:
            raise ConfigError("push-images: the agent's provider takes no images; leave --push-images out")
        from wasmlet_remote.images import Images  # most nodes need no client of registries

        directory, say = context.state_dir / "images", self._mailbox.put
        self._images = Images(self.config, directory, self._put, say, self._clock, self._rng)
        await self._images.__aenter__()

    async def _follow(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follower.run())
            group.create_task(self._forget())
            group.create_task(self._creates.run())
            group.create_task(self._deletes.run())
            group.create_task(self._forgets.run())

    # --- pods

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        self._told.pop(pod.uid, None)
        await self._hand_over("PUT", pod, await self._with_images(pod, inputs))
        self._lacking.discard(pod.uid)

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        inputs = await self._with_images(pod, inputs)
        if pod.uid in self._lacking:
            await self._hand_over("PUT", pod, inputs)
            self._lacking.discard(pod.uid)
        await self._hand_over("PATCH", pod, inputs)

    async def _with_images(self, pod: Pod, inputs: Inputs) -> Inputs:
        """The inputs of a pod, with its images brought to the agent where that is what is wanted."""
        if self._images is None or pod.deleting:
            return inputs
        images = await self._images.of(pod, inputs, self._handed.get(pod.uid, {}))
        self._handed[pod.uid] = images
        return attrs.evolve(inputs, images=images)

    async def _hand_over(self, method: str, pod: Pod, inputs: Inputs) -> None:
        body = body_of(pod, inputs)
        try:
            if method == "PUT" and BATCHES in self._supported and not body.packed:
                await self._again(lambda: self._creates.put(create(pod.uid, body)))
            else:
                await self._write(method, f"/pods/{pod.uid}", body=body)
        except NotYet:
            if self._images is not None:  # an image is gone there: the next call brings it again
                self._handed.pop(pod.uid, None)
                self._images.forget()
            raise

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        last = await self._end(key, grace_seconds, keep=False)
        self._lacking.discard(key.uid)
        self._handed.pop(key.uid, None)
        self._told[key.uid] = self._clock.monotonic()
        return last

    async def end_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        return await self._end(key, grace_seconds, keep=True)

    async def _end(self, key: PodKey, grace_seconds: float, *, keep: bool) -> PodStatus | None:
        if key.uid in self._told:
            raise NotFound(f"pod {key} has been ended")
        until = self._clock.monotonic() + grace_seconds

        def once() -> Coroutine[Any, Any, None]:
            order = delete(key, max(0.0, until - self._clock.monotonic()), keep=keep)
            return self._deletes.put(order) if BATCHED_DELETES in self._supported else self.alone(order)

        async def insist() -> None:
            while True:
                await self._again(once)
                await self._clock.sleep(REPEAT_SECONDS)

        end = self._follower.ending(key.uid)
        asking = asyncio.ensure_future(insist())
        waits: list[asyncio.Future[Any]] = [end, asking]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not end.done():
                await asking
            return end.result()
        finally:
            self._follower.no_ending(key.uid)
            asking.cancel()
            await asyncio.wait([asking])
            if not asking.cancelled():
                asking.exception()  # the end was told nevertheless

    async def pod_status(self, key: PodKey) -> PodStatus:
        found = await understood(ListedPod, await self._read(f"/pods/{key.uid}"))
        return self._follower.offset.ours(found.status)

    async def list_pods(self) -> Sequence[PodRecord]:
        listed = (await understood(PodList, await self._read("/pods"))).pods
        self._lacking = {pod.key.uid for pod in listed if not pod.digest}
        self._handed = {pod.key.uid: pod.images for pod in listed}
        if self._images is not None:
            self._images.forget()
        return [PodRecord(pod.key, self._follower.offset.ours(pod.status)) for pod in listed]

    def changes(self) -> AsyncGenerator[Change, None]:
        return self._mailbox.changes()

    # --- the node

    async def node_status(self) -> NodeStatus:
        return await self._follower.node()

    async def ping(self) -> None:
        self._follower.check()

    async def stats(self) -> Mapping[str, Any]:
        try:
            content = await self._now("GET", "/stats")
            found = orjson.loads(content) if len(content) < LARGE else await in_thread(orjson.loads, content)
        except orjson.JSONDecodeError as error:
            raise WasmletError(f"expected statistics of the agent, found no JSON: {error}") from None
        if not isinstance(found, dict):
            raise WasmletError("expected statistics of the agent, found no object")
        return found

    def probe_counts(self) -> Mapping[ProbeCount, int]:
        return self._follower.probes

    def figures(self) -> Sequence[Figure]:
        return self._follower.figures()

    # --- streams

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        self._require("logs")
        params = {name: "true" for name in ("follow", "previous", "timestamps") if getattr(options, name)}
        if options.since_time is not None:
            params["since"] = self._follower.offset.theirs(options.since_time).isoformat()
        if options.tail_lines is not None:
            params["tail"] = str(options.tail_lines)
        if options.limit_bytes is not None:
            params["limit"] = str(options.limit_bytes)
        path = f"/pods/{key.uid}/containers/{container}/logs"
        pieces = log_of(self._opened, path, params, silence=None if options.follow else FIRST_BYTE_SECONDS)
        if options.follow:
            pieces = until(self._follower.gone, pieces, self._opened.url)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def exec(self, key: PodKey, container: str, command: Sequence[str], streams: Streams) -> int:
        self._require("exec")
        path = f"/pods/{key.uid}/containers/{container}/exec"
        return await attached(self._opened, path, streams, [("command", word) for word in command])

    async def attach(self, key: PodKey, container: str, streams: Streams) -> None:
        self._require("attach")
        await attached(self._opened, f"/pods/{key.uid}/containers/{container}/attach", streams, [])

    async def port_forward(self, key: PodKey, port: int, channel: Channel) -> None:
        self._require("port_forward")
        await forwarded(self._opened, f"/pods/{key.uid}/portforward", channel, [("port", str(port))])

    def _require(self, call: str) -> None:
        if not self.supports(call):
            raise Unsupported(f"the agent's provider does not support {call.replace('_', '-')}")

    # --- requests

    @property
    def _opened(self) -> Link:
        assert self._link is not None
        return self._link

    async def _put(self, path: str, body: Body, params: Params) -> bytes:
        return await self._write("PUT", path, body=body, params=params)

    async def _write(self, method: str, path: str, *, body: Body | None = None, params: Params | None = None) -> bytes:
        """Make a request that changes something, as often as it takes.

        Each try has a sequence number of its own: one that was held back on its way is older than the next, and is
        refused when it arrives.
        """
        content, headers = (b"", {}) if body is None else (body.content, body.headers)

        def once() -> Coroutine[Any, Any, bytes]:
            numbered = {**headers, SEQUENCE_HEADER: str(next(self._sequence))}
            return self._now(method, path, body=content, params=params, headers=numbered)

        return await self._again(once)

    async def _again(self, once: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a request that changes something, again and again until the agent answers it. Returns the answer."""
        retries = Retries(RETRIES, self._clock, self._rng)
        while True:
            await self._follower.connected.wait()
            try:
                return await once()
            except SessionOver:
                self._follower.superseded()
                raise
            except Untrusted:
                raise
            except (Away, Starting, Stale):  # stale: overtaken by a copy of itself
                await retries.wait()

    async def alone(self, order: Order) -> None:
        """Make the request for one pod, once."""
        headers = {SEQUENCE_HEADER: str(next(self._sequence))} | (order.body.headers if order.body is not None else {})
        path = f"/pods/{order.uid}{order.action}"
        await self._now(order.method, path, body=order.content, params=order.params or None, headers=headers)

    def lines(self, path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        """Send a request for many pods, and give the lines of its answer."""
        return self._opened.lines(path, body)

    async def _read(self, path: str) -> bytes:
        """The answer to a GET, however long the agent is away."""
        retries = Retries(RETRIES, self._clock, self._rng)
        while True:
            await self._follower.connected.wait()
            try:
                return await self._now("GET", path)
            except Untrusted:
                raise
            except (Away, Starting, Unclaimed):
                await retries.wait()

    async def _now(self, method: str, path: str, **rest: Any) -> bytes:
        """Make a request once. Fails if the agent is away."""
        try:
            return await self._opened.ask(method, path, **rest)
        except SessionOver:
            self._follower.superseded()
            raise

    async def _forget(self) -> None:
        """Tell the agent which ends need not be kept any more."""
        while True:
            await self._clock.sleep(FORGET_SECONDS / 4)
            if not self._follower.connected.is_set():
                continue
            due = self._clock.monotonic() - FORGET_SECONDS
            over = [uid for uid, told in self._told.items() if told <= due]
            await asyncio.gather(*map(self._forget_one, over))

    async def _forget_one(self, uid: str) -> None:
        """Try once; it is tried again with others, where it fails."""
        order = forget(uid)
        with suppress(WasmletError):
            with suppress(NotFound, Stale):
                if BATCHED_FORGETS in self._supported:
                    await self._forgets.put(order)
                else:
                    async with self._forgetting:
                        await self.alone(order)
            self._told.pop(uid, None)
