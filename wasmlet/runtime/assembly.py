"""What all pods of a provider share, put together from its settings; the provider keeps the pods."""

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
from wasmlet.runtime.files.volumes import Storage
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
    """What the shared parts ask of whoever keeps the pods.

    Attributes:
        saw: told what the shim says of a container.
        claim_directory: the directory of a claim, of a provider that knows it by itself.
        background: runs a task that its caller does not wait for.
        used: what is set aside for all pods but one.
        instance: the instance of a container that runs.
    """

    saw: Callable[[ContainerRecord], None]
    claim_directory: Directory | None
    background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    used: Callable[[PodKey], resizing.Amounts]
    instance: Callable[[PodKey, str], ContainerRecord]


@attrs.frozen(kw_only=True)
class Setting:
    """What a provider is started with.

    Attributes:
        engines: those that the node offers, the provider's own first.
        state_dir: of the provider.
        commands: runs commands of probes and hooks in place of execs; None for execs.
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
    """The shared parts; the shim is not connected yet, and the registries are open.

    Returns:
        The parts, the execs, and what there is to say of pods' own users.

    Raises:
        ConfigError: a setting is wrong.
    """
    config, state_dir, clock = setting.config, setting.state_dir, setting.clock
    client = ShimClient(state_dir, clock, config.shim_idle_exit, owner.saw, cgroups=config.cgroups)
    module_dir = config.module_dir and config.module_dir.absolute()
    images = Images(config.allow_local_modules, module_dir, config.max_module_bytes)
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
