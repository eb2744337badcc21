"""The agent: runs one provider on this machine, for a node loop on another one.

It keeps the pods that it was given (`pods`), and knows which node loop may give orders now (`sessions`). A node loop
begins with `Agent.claim`. The pods go on running while no node loop is connected.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import structlog

from wasmlet.clock import Backoff, Clock, Retries, SystemClock, either
from wasmlet.concurrency import in_thread
from wasmlet.errors import ConfigError
from wasmlet.failures import described, text_of
from wasmlet.memory import give_back
from wasmlet.provider import NodeChanged, NodeContext, PodEvent, Provider, StatusChanged
from wasmlet_agent.changes import Changes
from wasmlet_agent.outcomes import Outcome, outcome_of
from wasmlet_agent.pods.pods import Pods
from wasmlet_agent.pods.store import Store
from wasmlet_agent.protocol import BATCHED_DELETES, BATCHED_FORGETS, BATCHES, BEAT_SECONDS
from wasmlet_agent.protocol.messages import Beat, NodeDescription, ProbeResult, SessionAnswer, SessionRequest
from wasmlet_agent.sessions import Sessions

log = structlog.get_logger(__name__)

SUPPORTED = ("logs", "exec", "attach", "port_forward", "stats", "take_image")
_ANSWER_SECONDS = 10.0
"""How long `node_status` and `ping` of the provider may take."""


@attrs.frozen
class Places:
    """Where the agent keeps what.

    Attributes:
        state_dir: exists, mode 0700, of this agent alone.
        keep_secrets: whether secrets and tokens of pods go to the disk.
        handover: whether the node loop of another Node may take the agent over.
    """

    state_dir: Path
    keep_secrets: bool = False
    handover: bool = False


@contextlib.contextmanager
def _readable(directory: Path) -> Iterator[None]:
    """Raises ConfigError where the state directory cannot be read, or written as a start has to."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(f"--state-dir {directory}: what is kept there cannot be read or written: {why}") from None


class Agent:
    """Use as an async context manager, in which it starts its provider where it knows the Node.

    Args:
        make: makes a provider; called again whenever a node loop describes the Node differently than before.

    Raises:
        ConfigError: this machine cannot run the provider, or the state directory cannot be read.
    """

    def __init__(self, make: Callable[[], Provider], places: Places, clock: Clock | None = None) -> None:
        self._make = make
        self._clock = clock or SystemClock()
        self._state_dir = places.state_dir
        with _readable(places.state_dir):
            self._store = Store(places.state_dir, keep_secrets=places.keep_secrets, clock=self._clock)
            self.sessions = Sessions(places.state_dir / "session.json", handover=places.handover)
        self.changes = Changes()
        self.pods = Pods(self._store, self.changes, self._clock, self._spawn)
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._claiming = asyncio.Lock()
        self._served: NodeDescription | None = None
        self._provider: Provider | None = None
        self._followers: list[asyncio.Task[Any]] = []
        self._trouble = ""
        self._look_again = asyncio.Event()

    async def __aenter__(self) -> Agent:
        with _readable(self._state_dir):
            await self.pods.load()
        await self._group.__aenter__()
        self._spawn(self._store.run())
        if (node := self.sessions.newest.node) is not None:
            self._spawn(self._serve_again(node))
        return self

    async def __aexit__(self, *error: Any) -> None:
        try:
            await self._leave()
        finally:
            for task in self._tasks:
                task.cancel()
            try:
                await self._group.__aexit__(*error)
            finally:  # also where a task of it has failed
                await self._store.close()

    @property
    def trouble(self) -> str:
        """What is wrong with the provider, or "". An agent that no node loop has claimed yet has no trouble."""
        if self.sessions.newest.node is None:
            return ""
        return "the provider is starting" if self._served is None else self._trouble

    async def claim(self, request: SessionRequest) -> SessionAnswer:
        """Begin a session; the provider has started when it returns.

        Raises:
            OtherNode, LateDuplicate: as `Sessions.admit`.
            WasmletError: the provider does not start.
        """
        self.sessions.admit(request)
        task: asyncio.Task[Outcome[SessionAnswer]] = self._spawn(outcome_of(self._claim(request)))
        await asyncio.wait([task])
        return task.result().get()

    def beat(self, n: int) -> Beat:
        """The line that a reader of the stream of changes gets every few seconds.

        Args:
            n: the number of the newest change that this reader has got.
        """
        counts = self._provider.probe_counts() if self._served is not None and self._provider is not None else {}
        probes = tuple(ProbeResult(of, times) for of, times in counts.items())
        return Beat(n, self._clock.now(), self.trouble, probes)

    def now(self) -> datetime:
        """This machine's time."""
        return self._clock.now()

    async def _claim(self, request: SessionRequest) -> SessionAnswer:
        async with self._claiming:
            self.sessions.admit(request)
            before = self._served
            try:
                await self._serve(request.node)
                number = await self.sessions.begin(request)
                self.changes.new_session()
            except Exception:
                if before is not None and self._served != before:  # the session that goes on has its provider back
                    await self._leave()
                    self._spawn(self._serve_again(before))
                raise
            provider = self.pods.provider
            return SessionAnswer(
                session=number,
                instance=self.changes.instance,
                provider=provider.name,
                version=importlib.metadata.version("wasmlet"),
                n=self.changes.n,
                now=self._clock.now(),
                supports=(
                    BATCHES,
                    BATCHED_DELETES,
                    BATCHED_FORGETS,
                    *(call for call in SUPPORTED if provider.supports(call)),
                ),
            )

    async def _serve_again(self, node: NodeDescription) -> None:
        """Start the provider without a node loop, as after a reboot; tries until it starts."""
        retries, first = Retries(Backoff(initial=1.0, cap=30.0), self._clock), True
        while True:
            try:
                async with self._claiming:
                    if self._served is None:
                        await self._serve(node)
                return
            except Exception as error:
                log.error("the provider does not start", **described(error, first=first))
            first = False
            await retries.wait()

    async def _serve(self, node: NodeDescription) -> None:
        if self._served == node:
            return
        await self._leave()
        directory = self._state_dir / "provider"
        directory.mkdir(mode=0o700, exist_ok=True)
        context = NodeContext(node.name, node.ip, node.max_pods, directory, node.cluster_dns, node.cluster_domain)
        self._provider = provider = self._make()
        try:
            await provider.start(context)
            await self.pods.attach(provider)
        except BaseException:
            await self._leave()
            raise
        self._followers = [self._spawn(self._follow(provider)), self._spawn(self._look(provider))]
        self._served = node
        await in_thread(give_back)  # what was needed to start
        log.info("the provider has started", provider=provider.name, node=node.name)

    async def _leave(self) -> None:
        """Stop the provider; what runs goes on running."""
        self._served = None
        for task in self._followers:
            task.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)
        self._followers = []
        await self.pods.detach()
        provider, self._provider = self._provider, None
        if provider is not None:
            await provider.stop()

    async def _follow(self, provider: Provider) -> None:
        """Pass on what the provider tells."""
        retries, first = Retries(Backoff(initial=0.2, cap=10.0), self._clock), True
        while True:
            retries.begin()
            try:
                stream = provider.changes()
                if stream is None:
                    await self._poll(provider)
                    return
                await self._list(provider)
                async with contextlib.aclosing(stream) as changes:
                    async for change in changes:
                        match change:
                            case StatusChanged(key, status):
                                self.pods.saw(key, status)
                            case PodEvent():
                                self.changes.event(change)
                            case NodeChanged():
                                self._look_again.set()
            except Exception as error:
                log.warning("the provider's changes have ended", **described(error, first=first or retries.steady))
                first = False
            await retries.wait()

    async def _poll(self, provider: Provider) -> None:
        while True:
            await self._list(provider)
            await self._clock.sleep(provider.poll_seconds)

    async def _list(self, provider: Provider) -> None:
        for record in await provider.list_pods():
            self.pods.saw(record.key, record.status)

    async def _look(self, provider: Provider) -> None:
        """Ask again and again how the provider and its node are."""
        said = ""
        while True:
            self._look_again.clear()
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await provider.ping()
                self._trouble = ""
            except Exception as error:
                self._trouble = text_of(error)
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    self.changes.node(await provider.node_status())
                said = ""
            except Exception as error:
                if (text := text_of(error)) != said:  # it is asked every few seconds
                    log.warning("the provider does not say how the node is", **described(error, first=not said))
                said = text
            await either(self._clock, BEAT_SECONDS, self._look_again)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
