"""Makes the services that all pods of a provider share, from its settings. The provider itself keeps the pods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import attrs

from wasmlet.clock import Clock
from wasmlet.concurrency import in_thread
from wasmlet.model.hosts import Dns
from wasmlet.model.pod import PodKey
from wasmlet.runtime import machine, resizing
from wasmlet.runtime.changes import Changes
from wasmlet.runtime.config import RuntimeConfig
from wasmlet.runtime.engine import Engine
from wasmlet.runtime.files import pod_users
from wasmlet.runtime.files.claims import Claims, Directory
from wasmlet.runtime.files.memory import Memory
from wasmlet.runtime.files.storage import Storage
from wasmlet.runtime.handlers import Handlers
from wasmlet.runtime.images.compiler import Compiler
from wasmlet.runtime.images.facts import Facts
from wasmlet.runtime.images.images import Images
from wasmlet.runtime.images.imports import Imports
from wasmlet.runtime.images.registries import Registries
from wasmlet.runtime.images.turns import Turns, places
from wasmlet.runtime.network.pod_networks import PodNetworks
from wasmlet.runtime.services import RuntimeServices
from wasmlet.runtime.shim.client import ShimClient
from wasmlet.runtime.shim.records import ContainerRecord
from wasmlet.runtime.streams.commands import Commands, PodCommands
from wasmlet.runtime.streams.execs import Execs


@attrs.frozen(kw_only=True)
class PodsOwner:
    """Callbacks into the owner of the pods (the provider), for the shared services.

    Attributes:
        saw: called with each new record of a container from the shim.
        claim_directory: finds the directory of a claim, if the provider knows that itself; else None.
        background: runs a task that its caller does not wait for.
        used: the resources that are reserved for all pods except this one.
        instance: the running instance of a container.
    """

    saw: Callable[[ContainerRecord], None]
    claim_directory: Directory | None
    background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    used: Callable[[PodKey], resizing.Amounts]
    instance: Callable[[PodKey, str], ContainerRecord]


@attrs.frozen(kw_only=True)
class Setting:
    """The settings and services with which a provider is started.

    Attributes:
        engines: the engines that the node offers, the provider's own first.
        state_dir: the provider's state directory.
        commands: runs the commands of probes and hooks; None: they are run as execs.
    """

    config: RuntimeConfig
    engines: Sequence[Engine]
    state_dir: Path
    clock: Clock
    changes: Changes
    dns: Dns
    networks: PodNetworks
    commands: Commands | None = None


async def assembled(setting: Setting, owner: PodsOwner) -> tuple[RuntimeServices, Execs, str]:
    """Make the shared services. The shim is not connected yet; the registries are open.

    Returns:
        The services, the execs, and in words whether pods have users of their own.

    Raises:
        ConfigError: a setting is wrong.
    """
    config, state_dir, clock = setting.config, setting.state_dir, setting.clock
    client = ShimClient(state_dir, clock, config.shim_idle_exit, owner.saw, cgroups=config.cgroups)
    module_dir = config.module_dir and config.module_dir.absolute()
    images = Images(config.allow_local_modules, module_dir, config.max_module_bytes, config.explain_local_modules)
    registries = Registries(state_dir / "images", config, config.max_module_bytes, clock)
    limits, turns = config.compile_limits(), Turns(places(), clock.monotonic)
    handlers = Handlers(
        setting.engines, lambda engine, dense: Compiler(engine, registries.store, limits, turns, dense=dense)
    )
    host_paths = config.host_paths()
    claims = Claims(owner.claim_directory, host_paths, config.allow_storage_class)
    storage = Storage(state_dir, Memory(state_dir), host_paths, claims, setting.dns)
    execs = Execs(client, handlers, config.max_module_bytes)
    users, words = await in_thread(pod_users.started, state_dir, config.users())
    capacity = await asyncio.to_thread(machine.capacity)
    services = RuntimeServices(
        client=client,
        images=images,
        imports=Imports(config.max_module_bytes),
        facts=Facts(config.max_module_bytes),
        registries=await registries.__aenter__(),
        handlers=handlers,
        changes=setting.changes,
        clock=clock,
        state_dir=state_dir,
        storage=storage,
        log_limits=config.log_limits(),
        background=owner.background,
        commands=setting.commands or PodCommands(execs, owner.instance),
        restart_cap=config.max_container_restart_period,
        capacity=resizing.amounts({"limits": capacity}, "limits"),
        used=owner.used,
        users=users,
        networks=setting.networks,
    )
    return services, execs, words
