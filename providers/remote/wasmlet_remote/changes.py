"""Reads the agent's stream of changes, reconnects where it broke off, and knows whether the agent is reachable."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import aclosing

import attrs
import structlog
from wasmlet_agent.protocol import LARGE, SILENCE_SECONDS
from wasmlet_agent.protocol.failures import SessionOver, Unclaimed
from wasmlet_agent.protocol.messages import Beat, EndedLine, EventLine, Hello, Line, NodeLine, StatusLine, line_in

from wasmlet import (
    Clock,
    Condition,
    ConfigError,
    Figure,
    InvalidInput,
    NodeChanged,
    NodeStatus,
    PodStatus,
    ProbeCount,
    StatusChanged,
    WasmletError,
)
from wasmlet.clock import Retries
from wasmlet.concurrency import first_of, in_thread
from wasmlet.failures import described
from wasmlet_remote.clocks import Offset
from wasmlet_remote.link import MOST_NONSENSE, Away, Link, lines_of
from wasmlet_remote.mailbox import Mailbox
from wasmlet_remote.session import RETRIES, Sessions

log = structlog.get_logger(__name__)

GONE_SECONDS = 75.0
"""After so long without a line, the end of a log that is followed counts as lost: nothing comes on a connection whose
other end has lost its power. As long as for links of a host."""
LEAST_PAUSE = 0.1
"""Seconds between two tries to open the stream, whatever else succeeds."""


class Follower:
    """Follows one agent.

    Attributes:
        connected: set while the agent's stream is read; only then it makes sense to send requests.
        offset: of the agent's clock.
        probes: what the agent has counted.
    """

    def __init__(self, link: Link, sessions: Sessions, mailbox: Mailbox, clock: Clock, rng: random.Random) -> None:
        self._link = link
        self._sessions = sessions
        self._mailbox = mailbox
        self._clock = clock
        self._retries = Retries(RETRIES, clock, rng)
        self._instance, self._newest = "", 0
        self._heard = clock.monotonic()
        self._begun = 1
        self._came = asyncio.Event()
        self._node: NodeStatus | None = None
        self._node_known = asyncio.Event()
        self._trouble = ""
        self._broke = "it has not answered yet"
        self._endings: dict[str, asyncio.Future[PodStatus | None]] = {}
        self._nonsense = 0
        """Lines of this stream that make no sense."""
        self._puzzled = False
        self.connected = asyncio.Event()
        self.offset = Offset()
        self.probes: Mapping[ProbeCount, int] = {}

    async def run(self) -> None:
        """Follow until cancelled, or until the agent is another node loop's or another Node's."""
        try:
            await first_of(self._follow(), self._watch())
        except ConfigError as error:
            self._mailbox.over(error)

    def superseded(self) -> None:
        """Another node loop has taken the agent over: this one ends, and does not take it back."""
        self._mailbox.over(
            ConfigError(
                f"another node loop has taken over the agent {self._link.url}; this one ends, and its pods go on there"
            )
        )

    # --- what others ask

    def check(self) -> None:
        """See that the agent is there and well.

        Raises:
            WasmletError: it is not.
        """
        if self._silent:
            seconds = self._clock.monotonic() - self._heard
            raise Away(f"agent {self._link.url} is away since {seconds:.0f} s: {self._broke}")
        if self._trouble:
            raise WasmletError(f"agent {self._link.url}: {self._trouble}")

    async def gone(self) -> None:
        """Return when the agent has been silent for so long that what has begun on its side is taken for lost."""
        while (left := self._heard + GONE_SECONDS - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)

    async def node(self) -> NodeStatus:
        """What the agent said last of the node; waits until it has said something."""
        await self._node_known.wait()
        assert self._node is not None
        if not self.offset.skewed:
            return self._node
        ahead = self.offset.value.total_seconds()
        text = f"the agent's clock is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}; times are corrected"
        skew = Condition("ClockSkew", "True", "ClocksDiffer", text)
        return attrs.evolve(self._node, conditions=(*self._node.conditions, skew))

    def ending(self, uid: str) -> asyncio.Future[PodStatus | None]:
        """A future with the last status of a pod, set when the agent says that the pod has ended.

        Ask for it before the delete is sent, and call `no_ending` when nobody waits any more.
        """
        return self._endings.setdefault(uid, asyncio.get_running_loop().create_future())

    def no_ending(self, uid: str) -> None:
        """Nobody waits for the pod's end any more."""
        self._endings.pop(uid, None)

    def figures(self) -> Sequence[Figure]:
        """The state of the link, for Prometheus."""
        return (
            Figure("agent_connected", "1 while the agent's changes are read, 0 otherwise.", self.connected.is_set()),
            Figure(
                "agent_silent_seconds",
                "For how long nothing has come from the agent, which says something each few seconds.",
                self._clock.monotonic() - self._heard,
            ),
            Figure(
                "agent_clock_offset_seconds",
                "By how much the agent's clock is ahead; differences up to a second count as none.",
                self.offset.value.total_seconds(),
            ),
            Figure("agent_takeovers", "How often the agent was taken over since this node loop began.", self._begun),
        )

    # --- the stream

    @property
    def _silent(self) -> bool:
        return self._clock.monotonic() - self._heard >= SILENCE_SECONDS

    async def _follow(self) -> None:
        first = True
        while True:
            self._retries.begin()
            try:
                await self._read_or_begin()
                self._broke = "it ended its stream of changes"
            except SessionOver:
                self.superseded()
                return
            except ConfigError:
                raise
            except Exception as error:  # whatever an agent sends must not end the provider
                self._broke = str(error) or type(error).__name__
                if first or self._retries.steady:
                    log.warning("the agent's changes broke off, trying again", **described(error))
                first = False
            self.connected.clear()
            self._link.succeeded.clear()
            await self._retries.wait(self._link.succeeded, at_least=LEAST_PAUSE)

    async def _watch(self) -> None:
        """Tell the node loop when the agent goes away; that it is back, the stream tells."""
        while True:
            while not self._silent:
                await self._clock.sleep(self._heard + SILENCE_SECONDS - self._clock.monotonic())
            log.warning("the agent is away", agent=self._link.url, error=self._broke)
            self._mailbox.put(NodeChanged())
            self._came.clear()
            await self._came.wait()
            log.info("the agent is back", agent=self._link.url)

    async def _read_or_begin(self) -> None:
        """Read one stream to its end. An agent that does not know the session is taken over anew instead.

        Raises:
            SessionOver: another node loop has it.
            ConfigError: it cannot be, and that would be the same again.
        """
        try:
            await self._read()
        except Unclaimed:
            log.warning("the agent has lost what was on its disk; beginning anew", agent=self._link.url)
            await self._sessions.begin(again=True)
            self._begun += 1

    async def _read(self) -> None:
        """Read one stream to its end."""
        self._nonsense = 0
        params = {"instance": self._instance, "after": str(self._newest)}
        async with (
            self._link.stream("/changes", params=params, silence=SILENCE_SECONDS, own=True) as response,
            aclosing(lines_of(response)) as lines,
        ):
            async for text in lines:
                if (line := await self._understood(text)) is not None:
                    self._take(line)

    async def _understood(self, text: bytes) -> Line | None:
        """What a line says; None for one that says nothing to us.

        Raises:
            Away: too many say nothing.
        """
        try:
            return line_in(text) if len(text) < LARGE else await in_thread(line_in, text)
        except InvalidInput as error:
            if not self._puzzled:
                log.warning("the agent's changes have a line that makes no sense", error=str(error))
            self._puzzled = True
            self._nonsense += 1
            if self._nonsense > MOST_NONSENSE:
                said = f"agent {self._link.url}: more than {MOST_NONSENSE} lines of its changes make no sense"
                raise Away(said) from None
            return None

    def _take(self, line: Line) -> None:
        if self._silent:
            self._mailbox.put(NodeChanged())
        self._heard = self._clock.monotonic()
        self._came.set()
        match line:
            case Hello():
                self._greeted(line)
            case StatusLine(_, key, status):
                self._mailbox.put(StatusChanged(key, self.offset.ours(status)))
            case EventLine(_, event):
                self._mailbox.put(event)
            case NodeLine(_, node):
                self._node = node
                self._node_known.set()
                self._mailbox.put(NodeChanged())
            case EndedLine(_, uid, status):
                if (waiting := self._endings.get(uid)) is not None and not waiting.done():
                    waiting.set_result(None if status is None else self.offset.ours(status))
            case Beat():
                self._beaten(line)
        if not isinstance(line, Hello):
            self._newest = max(self._newest, line.n)

    def _greeted(self, hello: Hello) -> None:
        self._measure(hello)
        if hello.instance != self._instance:
            if self._instance:
                self._mailbox.again()
            self._instance, self._newest = hello.instance, 0
        self.connected.set()

    def _beaten(self, beat: Beat) -> None:
        self._measure(beat)
        if beat.trouble != self._trouble:
            self._trouble = beat.trouble
            self._mailbox.put(NodeChanged())
        self.probes = {result.of: result.times for result in beat.probes}

    def _measure(self, line: Hello | Beat) -> None:
        if self.offset.measured(line.now, self._clock.now()):
            seconds = self.offset.value.total_seconds()
            if self.offset.skewed:
                log.warning("ClockSkew: the agent's clock differs from ours", agent=self._link.url, seconds=seconds)
            self._mailbox.put(NodeChanged())
