"""The host as a process: agents dial in, and each of them is a node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import structlog

from wasmlet import Clock, ConfigError, NodeConfig, SystemClock
from wasmlet.kube import Client, Identity, Reflector, Selection, errors, load_identity
from wasmlet.kubelet.descriptors import raise_descriptor_limit
from wasmlet.node.node import trim_memory
from wasmlet.signals import on_stop_signals
from wasmlet_remote.config import PushConfig
from wasmlet_remote.host.acceptor import Acceptor
from wasmlet_remote.host.config import HostConfig
from wasmlet_remote.host.nodes import Nodes
from wasmlet_remote.host.tokens import AGENT_LABEL, POOL_LABEL, Refusal, Tokens

log = structlog.get_logger(__name__)

OURS = "remote"
"""The provider whose nodes a host makes (label `wasmlet.dev/provider`)."""


async def serve(config: HostConfig, common: NodeConfig, push: PushConfig) -> None:
    """Be the host until SIGTERM or SIGINT; pods go on running.

    Raises:
        ConfigError: something that only the user can mend.
    """
    stop = asyncio.Event()
    raise_descriptor_limit()
    with on_stop_signals(stop.set):
        async with hosting(config, common, push) as url:
            log.info("the host serves", at=url)
            trim_memory()
            await stop.wait()


@asynccontextmanager
async def hosting(
    config: HostConfig, common: NodeConfig, push: PushConfig | None = None, clock: Clock | None = None
) -> AsyncIterator[str]:
    """A host that serves while the context is open; gives its URL."""
    clock = clock or SystemClock()
    context, authorities = await asyncio.to_thread(config.context), await asyncio.to_thread(config.authorities)
    identity = await load_identity(common.kubeconfig, clock=clock)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(identity, clock=clock))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        nodes = Nodes(identity, common, push or PushConfig(), group, clock)
        vet = partial(may_be, identity, clock=clock)
        tokens = Tokens(client, config.namespace, vet, clock, pool=config.pool)
        following = group.create_task(_follow(client, tokens.path, nodes, config.pool))
        acceptor = Acceptor(nodes, tokens.admit, authorities, clock)
        try:
            async with acceptor.serving(config.address, context) as url:
                yield url
        finally:
            following.cancel()
            await nodes.stop()


async def _follow(client: Client, path: str, nodes: Nodes, pool: str) -> None:
    """Have a node for each key, for ever."""
    of_pool = f",{POOL_LABEL}={pool}" if pool else ""
    keys = Selection(path, {"labelSelector": f"{AGENT_LABEL}=true{of_pool}"})
    try:
        await Reflector(client, keys, nodes, fatal=(errors.Forbidden,)).run()
    except errors.Forbidden as error:
        raise ConfigError(f"the host may not read its Secrets: {error}; see `wasmlet host rbac`") from None


async def may_be(identity: Identity, name: str, clock: Clock) -> None:
    """See that the host may make requests as that node, and that it is not the node of somebody else.

    Raises:
        Refusal: it may not, or it is.
    """
    async with Client(identity.as_node(name), clock=clock) as client:
        try:
            found = await client.get(f"/api/v1/nodes/{name}")
        except errors.ObjectNotFound:
            return
        except errors.Forbidden:
            raise Refusal(
                f"the host may not make requests as system:node:{name}; an administrator lets it with "
                f"`wasmlet host rbac {name}`"
            ) from None
    labels = (found.get("metadata") or {}).get("labels") or {}
    if labels.get("wasmlet.dev/provider") != OURS:
        raise Refusal(f"there is a node {name} already that is no agent's; choose another name with --node-name")
