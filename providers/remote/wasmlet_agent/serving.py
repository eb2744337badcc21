"""The agent as a process: it listens, until a signal ends it; its pods go on running."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from wasmlet.artifacts.files import lock
from wasmlet.concurrency import first_of
from wasmlet.errors import ConfigError
from wasmlet.kubelet.descriptors import raise_descriptor_limit
from wasmlet.kubelet.listening import listening
from wasmlet.provider import Provider
from wasmlet.signals import on_stop_signals
from wasmlet_agent.agent import Agent, Places
from wasmlet_agent.auth import Guard
from wasmlet_agent.config import AgentConfig, StateConfig
from wasmlet_agent.join.joining import JoinConfig, Joining
from wasmlet_agent.join.links import Links
from wasmlet_agent.server import CONNECTION, Server

log = structlog.get_logger(__name__)

_LINGER_SECONDS = 1.0
"""How long what is left of a refused body is read, so that its sender sees the answer."""


async def serve(config: AgentConfig, make: Callable[[], Provider]) -> None:
    """Serve node loops at an address until SIGTERM or SIGINT.

    Args:
        make: a new provider.

    Raises:
        ConfigError: a setting is wrong, this machine cannot run the provider, or the address cannot be had.
    """
    guard, context = config.guard(), config.context(config.client_ca_file)
    stop = asyncio.Event()
    with on_stop_signals(stop.set):
        async with started(config, make) as agent:
            runner = Server(agent, guard).runner()
            await runner.setup()
            try:
                options = {**CONNECTION, "lingering_time": _LINGER_SECONDS}
                async with listening(runner, config.address, context, **options) as url:
                    log.info("the agent serves", at=url)
                    await stop.wait()
            except OSError as error:
                raise ConfigError(f"--listen {config.listen}: {error.strerror}") from None


async def join(config: JoinConfig, host: str, make: Callable[[], Provider]) -> None:
    """Serve the node loop of a host over connections that this machine makes, until SIGTERM or SIGINT.

    Args:
        make: a new provider.

    Raises:
        ConfigError: a setting is wrong, this machine cannot run the provider, or the host refuses.
    """
    stop = asyncio.Event()
    with on_stop_signals(stop.set):
        await first_of(stay_joined(config, host, make), stop.wait())


async def stay_joined(config: JoinConfig, host: str, make: Callable[[], Provider]) -> None:
    """As `join`, but until it is cancelled: the caller handles signals."""
    async with started(config, make) as agent:
        runner = Server(agent, Guard(open=True)).runner()
        await runner.setup()
        assert runner.server is not None
        try:
            joining = Joining(config, host, config.directory())
            joined = await joining.joined()
            await Links(joined, runner.server, again=joining.again, mended=joining.mended).run()
        finally:
            await runner.cleanup()


@asynccontextmanager
async def started(config: StateConfig, make: Callable[[], Provider]) -> AsyncIterator[Agent]:
    """An agent whose state directory is its alone, and whose provider can run here.

    Raises:
        ConfigError: another agent has the state directory, or this machine cannot run the provider.
    """
    raise_descriptor_limit()
    await make().check()
    directory = config.directory()
    held = lock(directory / "lock", create=True)
    if held is None:
        raise ConfigError(f"state directory {directory} is in use by another agent; choose another with --state-dir")
    try:
        async with Agent(make, Places(directory, config.keep_secrets, config.handover)) as agent:
            yield agent
    finally:
        os.close(held)
