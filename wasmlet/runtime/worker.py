"""Worker processes as the node loop sees them: how they are started, what it gives them, what it hears of containers.

`shim_client` speaks with the shim; the processes themselves are `wasmlet.worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from wasmlet.worker import wire

WORKER = Path(wire.__file__).parent
KEPT_VARIABLES = ("LD_LIBRARY_PATH",)
"""What of this process's environment a worker process gets: what an interpreter may need to start, nothing else."""


@attrs.frozen
class ContainerRecord:
    """What the shim knows of one container; the fields are those of `wasmlet.worker.records.Record`.

    Times are seconds since the epoch, 0 where it has not happened.
    """

    id: str
    labels: Mapping[str, Any]
    log: str
    state: str
    pid: int = 0
    thread: int = 0
    memory: int = 0
    created: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    fault: str = ""

    @property
    def ended(self) -> bool:
        return self.state == wire.ENDED

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> ContainerRecord:
        """From the wire; fields that only a newer shim knows are passed over."""
        return cls(**{field.name: message[field.name] for field in attrs.fields(cls) if field.name in message})


def worker_environment() -> dict[str, str]:
    """The environment that a worker process starts with."""
    return {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}


async def launch_shim(state_dir: Path, idle_exit: float, seconds: float) -> str:
    """Start a shim in the background, and wait until it listens; another one that was quicker is as good.

    Returns:
        "" or, where it has not started, what it said or what is known.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(WORKER), "shim",
        "--state-dir", str(state_dir), "--idle-exit", str(idle_exit),
        env=worker_environment(), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds):
            _, said = await process.communicate()
    except TimeoutError:
        return f"the shim in {state_dir} did not start within {seconds:g} s"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode == 0:
        return ""
    return said.decode("utf-8", "replace").strip() or f"the shim ended with status {process.returncode}"


def spec_of(
    args: Sequence[str],
    env: Mapping[str, str],
    memory: int | None,
    mounts: Sequence[Mapping[str, Any]],
    user: Mapping[str, Any] | None = None,
) -> bytes:
    """The spec that a child reads (see `wasmlet.worker.wire`); `memory` in bytes, None: no limit."""
    spec = {"args": list(args), "env": list(env.items()), "memory": memory, "mounts": list(mounts), "user": user}
    return json.dumps(spec).encode()
