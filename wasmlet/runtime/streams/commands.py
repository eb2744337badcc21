"""Runs one command in a running container to its end, for probes and hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import attrs

from wasmlet.model.pod import PodKey
from wasmlet.runtime.shim.records import ContainerRecord
from wasmlet.runtime.streams.execs import Execs


class Commands(Protocol):
    """Runs commands in containers."""

    async def run(self, pod: PodKey, container: str, command: Sequence[str]) -> tuple[int, bytes]:
        """Run a command in the container's present instance; return its exit code and what it wrote, both streams.

        Cancelled: the command is ended.

        Raises:
            WasmletError, OSError: it cannot be run, or the container does not run.
        """
        ...


@attrs.frozen
class PodCommands:
    """Commands as execs.

    Attributes:
        instance: the running instance of a pod's container; raises `NotFound` where there is none.
    """

    execs: Execs
    instance: Callable[[PodKey, str], ContainerRecord]

    async def run(self, pod: PodKey, container: str, command: Sequence[str]) -> tuple[int, bytes]:
        return await self.execs.run(self.instance(pod, container).id, command)
