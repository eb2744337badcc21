"""Runs one node for each agent that has joined, for as long as the Secret with the agent's key exists."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import structlog

from wasmlet import Backoff, Clock, Node, NodeConfig
from wasmlet.clock import Retries
from wasmlet.failures import described
from wasmlet.kube import Identity
from wasmlet_remote.config import Config, PushConfig
from wasmlet_remote.host.config import node_config
from wasmlet_remote.host.links import Lines, transports
from wasmlet_remote.host.tokens import Agent, agent_in
from wasmlet_remote.provider import RemoteProvider

log = structlog.get_logger(__name__)

RETRIES = Backoff(initial=1.0, cap=60.0, jitter=0.5)


@attrs.define(eq=False)
class _Kept:
    """An agent, its links, and what runs its node."""

    agent: Agent
    lines: Lines = attrs.field(factory=Lines)
    node: Node | None = None
    task: asyncio.Task[None] | None = None
    leaving: asyncio.Event = attrs.field(factory=asyncio.Event)

    def leave(self) -> None:
        """End its node; returns at once."""
        self.leaving.set()
        if self.node is not None:
            self.node.request_stop()


class Nodes:
    """The nodes of a host. Also the handler of the reflector that watches the Secrets with agents' keys.

    Args:
        identity: the host's credentials; each node makes its requests with them, in its own name (impersonation).
        common: settings that hold for each node.
        push: whether the host brings images to its agents.
        group: the task group that runs the nodes.
    """

    def __init__(
        self,
        identity: Identity,
        common: NodeConfig,
        push: PushConfig,
        group: asyncio.TaskGroup,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._common = common
        self._push = push
        self._group = group
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self.in_sync = asyncio.Event()
        """All agents that have joined are known."""

    def __len__(self) -> int:
        return len(self._kept)

    def lines(self, name: str, digest: str) -> Lines | None:
        """The links of the agent of that name; None where that is not the hash of its key."""
        kept = self._kept.get(name)
        known = kept.agent if kept is not None else Agent(name, "0" * 64)
        return kept.lines if known.has(digest) and kept is not None else None

    def joined(self, agent: Agent) -> None:
        """Have a node for the agent."""
        kept = self._kept.get(agent.name)
        if kept is not None and kept.agent == agent:
            return
        if kept is not None:
            self._drop(agent.name)  # it has another key now
        kept = self._kept[agent.name] = _Kept(agent)
        kept.task = self._group.create_task(self._run(kept), name=f"agent {agent.name}")

    async def stop(self) -> None:
        """End all nodes; their pods go on."""
        tasks = [kept.task for kept in self._kept.values() if kept.task is not None]
        for kept in self._kept.values():
            kept.leave()
        if tasks:
            await asyncio.wait(tasks)

    # --- what the API says (Handler of the reflector)

    def synced(self, items: Sequence[dict[str, Any]]) -> None:
        found = [agent for agent in map(agent_in, items) if agent is not None]
        for name in self._kept.keys() - {agent.name for agent in found}:
            self._drop(name)
        for agent in found:
            self.joined(agent)
        self.in_sync.set()

    def applied(self, item: Mapping[str, Any]) -> None:
        if (agent := agent_in(item)) is not None:
            self.joined(agent)

    def deleted(self, item: Mapping[str, Any]) -> None:
        if (agent := agent_in(item)) is not None and agent.name in self._kept:
            self._drop(agent.name)

    def _drop(self, name: str) -> None:
        kept = self._kept.pop(name)
        kept.leave()
        kept.lines.close()
        log.info("the agent's key is gone: its node ends, its pods go on", node=name)

    async def _run(self, kept: _Kept) -> None:
        """The agent's node, made again where something ends it."""
        name, retries, first = kept.agent.name, Retries(RETRIES, self._clock), True
        while not kept.leaving.is_set():
            retries.begin()
            try:
                kept.node = self._node(kept)
                async with kept.node as node:
                    await node.wait()
            except Exception as error:
                fields = described(error, first=first or retries.steady)
                log.error("the node has ended; starting it again", node=name, **fields)
                first = False
            if not kept.leaving.is_set():
                await retries.wait(kept.leaving)

    def _node(self, kept: _Kept) -> Node:
        agent = kept.agent
        settings = Config(endpoint=f"http://{agent.name}", **attrs.asdict(self._push, recurse=False))
        provider = RemoteProvider(settings, transports=transports(kept.lines), clock=self._clock)
        config = node_config(self._common, agent.name)
        if agent.pool:
            config = attrs.evolve(config, node_labels=(*config.node_labels, f"wasmlet.dev/pool={agent.pool}"))
        return Node(provider, config, identity=self._identity.as_node(agent.name), clock=self._clock)
