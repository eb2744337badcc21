"""The services that all pods of a provider share: the shim, images, files, networks, and limits on concurrent work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from wasmlet.clock import Clock
from wasmlet.concurrency import Together
from wasmlet.model.pod import PodKey
from wasmlet.runtime import resizing
from wasmlet.runtime.changes import Changes
from wasmlet.runtime.files.pod_users import PodUsers
from wasmlet.runtime.files.storage import Storage
from wasmlet.runtime.handlers import Handlers
from wasmlet.runtime.images.facts import Facts
from wasmlet.runtime.images.images import Images
from wasmlet.runtime.images.imports import Imports
from wasmlet.runtime.images.registries import Registries
from wasmlet.runtime.logs import files as log_files
from wasmlet.runtime.network.pod_networks import PodNetworks
from wasmlet.runtime.probe_counts import ProbeCounts
from wasmlet.runtime.shim.client import ShimClient
from wasmlet.runtime.streams.commands import Commands

STARTS_PER_CPU = 8


@attrs.frozen(kw_only=True)
class RuntimeServices:
    """What all pods of a provider share.

    Attributes:
        log_limits: of each container's log, as `wasmlet.worker.wire` has them for `run`.
        background: runs a task that its caller does not wait for; the provider owns it.
        restart_cap: the longest pause before a restart, in seconds.
        capacity: the node's cpu and memory.
        used: how much of it is set aside for all pods but this one.
        users: gives each pod a user of its own; None where all are the node's own user.
        networks: gives each pod its network.
        starts: bounds how many containers are started at once. Of a thousand pods the first ones run soon, instead of
            all of them late.
        log_removals: removes all logs of pods (`logs.files.of_pod`), as far as that can be done.
        deferred: UIDs of the pods whose resizes wait for room.
    """

    client: ShimClient
    images: Images
    imports: Imports
    facts: Facts
    registries: Registries
    handlers: Handlers
    changes: Changes
    clock: Clock
    state_dir: Path
    storage: Storage
    log_limits: Mapping[str, int]
    background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    commands: Commands
    restart_cap: float
    capacity: resizing.Amounts
    used: Callable[[PodKey], resizing.Amounts]
    users: PodUsers | None
    networks: PodNetworks
    probe_counts: ProbeCounts = attrs.field(factory=ProbeCounts)
    log_removals: Together[Path] = attrs.field(factory=lambda: Together(log_files.remove_of))
    deferred: set[str] = attrs.field(factory=set)
    starts: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(STARTS_PER_CPU * (os.cpu_count() or 1)))

    def remove_logs(self, paths: Sequence[str]) -> None:
        """Remove log files; blocks."""
        for path in paths:
            log_files.remove(self.state_dir / path)
