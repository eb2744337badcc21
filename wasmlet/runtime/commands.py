"""What probes and hooks ask of exec: one command in a running container, to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from wasmlet.errors import Unsupported
from wasmlet.model.pod import PodKey


class Commands(Protocol):
    """Runs commands in containers."""

    async def run(self, pod: PodKey, container: str, command: Sequence[str]) -> tuple[int, bytes]:
        """Run a command in the container's present instance; return its exit code and what it wrote, both streams.

        Cancelled: the command is ended.

        Raises:
            WasmletError, OSError: it cannot be run, or the container does not run.
        """
        ...


class NoCommands:
    """For as long as there is no exec."""

    async def run(self, pod: PodKey, container: str, command: Sequence[str]) -> tuple[int, bytes]:
        raise Unsupported(f"exec is not supported here: container {container} cannot run {' '.join(command)!r}")
