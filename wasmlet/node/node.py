"""A node: a provider, an API server, and everything between them.

    async with Node(provider, NodeConfig(...)) as node:
        ...

`Node` starts what a node consists of in the order in which it is needed, keeps it running as one group of tasks, and
stops it in reverse. `run` does that until a signal comes.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import structlog

from wasmlet.clock import Backoff, Clock, SystemClock
from wasmlet.errors import ConfigError
from wasmlet.kube import Client, Identity, Recovery, errors, paths
from wasmlet.kube.client import THROTTLED_TRIES
from wasmlet.kubelet.descriptors import raise_descriptor_limit
from wasmlet.memory import give_back
from wasmlet.node.assembly import Foundation, Parts, assemble
from wasmlet.node.config import NodeConfig
from wasmlet.node.credentials import Credentials, first_contact
from wasmlet.node.description import NodeDescription
from wasmlet.node.hostname import names_this_node
from wasmlet.node.lease import LeaseKeeper
from wasmlet.node.pods.manager import PodManager
from wasmlet.node.pods.pod_task import PodTask
from wasmlet.node.registration import NodeRegistration
from wasmlet.node.services import NodeServices
from wasmlet.node.state_dir import StateDirectory
from wasmlet.provider import NodeContext, Provider
from wasmlet.signals import on_stop_signals

log = structlog.get_logger(__name__)

T = TypeVar("T")

FLUSH_SECONDS = 3.0
"""How long the end of a node waits for statuses and events that are still on their way."""


class Node:
    """One node. Use as an async context manager: inside it, the node is registered and takes pods.

    Args:
        provider: what runs the pods.
        config: the settings; the defaults are those of the command line.
        identity: the API server and credentials; without it, those of `config.kubeconfig`.
        clock: the system's clock without it; for tests.
        rng: randomness of pauses; for tests.

    Raises:
        ConfigError: raised on entering: something that only the user can mend; the message says what.
    """

    def __init__(
        self,
        provider: Provider,
        config: NodeConfig | None = None,
        *,
        identity: Identity | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.provider = provider
        self.config = config or NodeConfig()
        self._identity = identity
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._stop = asyncio.Event()
        self._started: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._started = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._main(), name=f"node {self.config.node_name}")
        try:
            await asyncio.wait({self._started, self._task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            raise
        if self._task.done():
            self._task.result()  # what ended it, unless it was asked to stop meanwhile
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def request_stop(self) -> None:
        """Ask the node to end; returns at once. Safe to call from a signal handler of the loop."""
        self._stop.set()

    async def stop(self) -> None:
        """End the node: pods go on running unless `drain_on_exit` is set."""
        self.request_stop()
        await self.wait()

    async def wait(self) -> None:
        """Return when the node has ended.

        Raises:
            Exception: what ended it, where that was not a stop.
        """
        if self._task is not None:
            await self._task

    async def _main(self) -> None:
        async with AsyncExitStack() as stack:
            state = await asyncio.to_thread(lambda: StateDirectory(self.config.directory()))
            stack.callback(state.close)
            credentials = Credentials(self.config, state.path, self._clock, self._rng)
            identity = self._identity or await self._unless_stopped(credentials.identity())
            if identity is None:
                return
            config = self.config
            client, lease_client, watch_client = await self._connect(stack, identity)
            await first_contact(client, self._clock)
            description = await self._describe(identity)
            registration = NodeRegistration(client, self.provider, description, self._clock)
            lease = LeaseKeeper(lease_client, config.node_name, state.instance, registration, self._clock, self._rng)
            await _reached(lease.claim())
            stack.push_async_callback(lease.release)
            stack.push_async_callback(self.provider.stop)
            context = NodeContext(
                config.node_name,
                description.ip,
                config.max_pods,
                state.path,
                config.cluster_dns,
                config.cluster_domain,
                lambda: registration.node,
            )
            await self._unless_stopped(self.provider.start(context))
            if self._stop.is_set():
                return
            renewal = credentials.run([client, lease_client, watch_client])
            base = Foundation(
                config=config,
                provider=self.provider,
                client=client,
                watch_client=watch_client,
                registration=registration,
                lease=lease,
                ip=description.ip,
                directory=state.path,
                certificate_until=lambda: credentials.until,
                clock=self._clock,
                rng=self._rng,
            )
            await self._serve(stack, base, renewal)

    async def _describe(self, identity: Identity) -> NodeDescription:
        ip = self.config.node_ip
        if ip is None:
            ip = await asyncio.to_thread(_own_address, identity.server)
        has_hostname = await names_this_node(self.config.node_name, ip)
        return NodeDescription(config=self.config, provider=self.provider.name, ip=ip, has_hostname=has_hostname)

    async def _connect(self, stack: AsyncExitStack, identity: Identity) -> tuple[Client, Client, Client]:
        """Three clients of the API server: for requests, for the lease's renewals, and for watches.

        The second client does not repeat a renewal that the server answers with 429: the lease keeper makes another
        try itself. The last two have no limit of connections. A renewal in an outage and a watch each hold one; whoever
        makes them limits their number.
        """
        recovery, answered = Recovery(), Counter[tuple[str, str]]()
        clients = [
            Client(
                identity,
                connections=connections,
                clock=self._clock,
                recovery=recovery,
                rng=self._rng,
                throttled_tries=throttled_tries,
                answered=answered,
            )
            for connections, throttled_tries in ((32, THROTTLED_TRIES), (0, 0), (0, THROTTLED_TRIES))
        ]
        client, lease_client, watch_client = [await stack.enter_async_context(client) for client in clients]
        return client, lease_client, watch_client

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What the work gives, or None where the node is asked to stop before it is done."""
        task, stopped = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for one in (task, stopped):
                one.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)

    async def _serve(self, stack: AsyncExitStack, base: Foundation, renewal: Coroutine[Any, Any, None]) -> None:
        """Take pods, until the node is asked to stop.

        Args:
            stack: ends what must outlive the tasks.
            renewal: keeps the node's credentials valid.
        """
        async with _stoppable() as group:
            group.create_task(renewal)
            parts = assemble(base, group)
            stack.push_async_callback(parts.api.stop)
            port = await parts.api.start(base.ip)
            await self._register(base, parts, port)
            self._keep_alive(base, parts)
            await self._unless_stopped(self._loaded(parts.pods, base.registration, parts.services.backoff))
            if not self._stop.is_set():
                self._follow_pods(parts, port)
            try:
                await self._until_stopped(parts.pods, base.registration, parts.services)
            finally:
                parts.pods.leave()  # what is begun while the group ends would not be cancelled with it
            raise _Stopped

    async def _register(self, base: Foundation, parts: Parts, port: int) -> None:
        """Show the node to the cluster, with a lease; it says NotReady where the provider could not list its pods."""
        if self.config.serving_csr:
            await parts.serving.load()
        base.registration.trouble = await self._unless_stopped(parts.pods.load()) or ""
        await self._unless_stopped(_reached(base.registration.register(port)))
        if self._stop.is_set():
            raise _Stopped
        await _reached(base.lease.begin())

    def _keep_alive(self, base: Foundation, parts: Parts) -> None:
        """Begin what keeps the Node, its lease, its events and its certificate up to date."""
        group, history = parts.watching.group, parts.watching.history
        group.create_task(base.lease.run(history))
        group.create_task(base.registration.run(base.watch_client, self._rng, history))
        group.create_task(parts.services.events.run())
        if self.config.serving_csr:
            group.create_task(parts.serving.run())

    def _follow_pods(self, parts: Parts, port: int) -> None:
        """Begin to follow the node's pods in the API and at the provider."""
        selector = {"fieldSelector": f"spec.nodeName={self.config.node_name}"}
        parts.watching.history.on_rewound(parts.pods.rewound)
        reflector = parts.watching.reflector(paths.PODS, selector, parts.pods)
        for work in (parts.pods.follow(), reflector.run(), self._say_ready(parts.pods, port)):
            parts.watching.group.create_task(work)

    async def _until_stopped(self, pods: PodManager, registration: NodeRegistration, services: NodeServices) -> None:
        """Wait for the end of the node, and do what comes before it."""
        await self._stop.wait()
        log.info("node stopping", node=self.config.node_name, pods=len(pods.all()))
        if self.config.drain_on_exit:
            await registration.shut_down()
            await self._drain(pods.all())
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await asyncio.gather(*(task.flushed() for task in pods.all()))
        await services.events.flush(1.0)

    async def _loaded(self, pods: PodManager, registration: NodeRegistration, backoff: Backoff) -> None:
        """Return when the provider has listed what it holds; until then the node is there, and not ready."""
        pauses = backoff.pauses(self._rng)
        while registration.trouble:
            await self._clock.sleep(next(pauses))
            registration.trouble = await pods.load()
            registration.changed()

    async def _say_ready(self, pods: PodManager, port: int) -> None:
        await pods.in_sync.wait()
        log.info("node ready", node=self.config.node_name, provider=self.provider.name, port=port)
        if self._started is not None and not self._started.done():
            self._started.set_result(None)

    async def _drain(self, tasks: Sequence[PodTask]) -> None:
        """End every pod, the least important first, within the time that there is (KEP-2712's order)."""
        log.info("ending all pods", count=len(tasks))
        until = self._clock.monotonic() + self.config.drain_seconds
        by_priority = sorted(tasks, key=_priority)
        for _, group in itertools.groupby(by_priority, key=_priority):
            left = max(0.0, until - self._clock.monotonic())
            await asyncio.gather(*(task.drain(left) for task in group))


def _priority(task: PodTask) -> int:
    return int(task.pod.spec.get("priority") or 0)


async def _reached(work: Awaitable[None]) -> None:
    """Do something that a node cannot start without. An error of the API server becomes a ConfigError for the user."""
    try:
        await work
    except errors.ApiError as error:
        raise ConfigError(f"the node cannot be registered: {error}") from None


class _Stopped(Exception):
    """Ends the node's group of tasks."""


@asynccontextmanager
async def _stoppable() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose body ends all its tasks by raising `_Stopped`. A single error of a task is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as raised:
        _, rest = raised.split(_Stopped)
        if rest is not None:
            raise (rest.exceptions[0] if len(rest.exceptions) == 1 else rest) from None


async def run(node: Node) -> None:
    """Run the node until SIGTERM, SIGINT or SIGHUP. Pods go on running, unless the node drains on exit."""
    raise_descriptor_limit()
    with on_stop_signals(node.request_stop):
        async with node:
            trim_memory()
            await node.wait()


def trim_memory() -> None:
    """Make the process of a node that has started small, and its garbage collector cheap.

    Modules that were imported are never freed, so the collector is told to skip them. Pods are trees without cycles, so
    it is told to run seldom. The memory that the imports have freed goes back to the system (some 20 MiB).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    give_back()


def _own_address(server: str) -> str:
    """The address from which this machine would reach the API server. Nothing is sent."""
    url = urlsplit(server)
    try:
        family, kind, _, _, address = socket.getaddrinfo(url.hostname, url.port or 443, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigError(f"this machine's address is not known ({error}); give it with --node-ip") from None
