"""Worker processes, as the node loop sees them: how they are started, what they get, and the records of containers.

`client` and `connection` talk to the shim; the code of the worker processes is in `wasmlet.worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson
import structlog

from wasmlet.concurrency import in_thread
from wasmlet.worker import wire

log = structlog.get_logger(__name__)

WORKER = Path(wire.CODE)
CODE = "worker"
"""Where in the state directory the code of its shim is."""
KEPT_VARIABLES = ("LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What of this process's environment a worker process gets: what an interpreter may need, and whom TLS trusts."""


@attrs.frozen
class ContainerRecord:
    """What the shim knows of one container; the fields are those of `wasmlet.worker.supervisor.records.Record`.

    Times are seconds since the epoch, 0 where it has not happened.
    """

    id: str
    labels: Mapping[str, Any]
    log: str
    state: str
    pid: int = 0
    thread: int = 0
    memory: int = 0
    group: str = ""
    created: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    fault: str = ""
    made: str = ""
    leaving: str = ""
    refused: tuple[str, ...] = ()
    unheard: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        return self.state == wire.ENDED

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> ContainerRecord:
        """From the wire; fields that only a newer shim knows are passed over."""
        known = {name: message[name] for name in _FIELDS if name in message}
        lists = {name: tuple(map(str, message.get(name) or ())) for name in ("refused", "unheard")}
        return cls(**{**known, **lists})


_FIELDS = tuple(field.name for field in attrs.fields(ContainerRecord))


def worker_environment() -> dict[str, str]:
    """The environment that a worker process starts with."""
    return {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}


async def launch_shim(state_dir: Path, idle_exit: float, cgroups: bool, seconds: float) -> str:
    """Start a shim in the background, and wait until it listens; another one that was quicker is as good.

    Returns:
        "" or, where it has not started, what it said or what is known.
    """
    worker = await in_thread(_own_copy, state_dir)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(worker), "shim",
        "--state-dir", str(state_dir), "--idle-exit", str(idle_exit),
        *(() if cgroups else ("--no-cgroups",)),
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
        await in_thread(_remove_others, worker)
        return ""
    return said.decode("utf-8", "replace").strip() or f"the shim ended with status {process.returncode}"


def _own_copy(state_dir: Path) -> Path:
    """The worker's code, copied into the state directory: a shim outlives an upgrade of what is installed.

    It starts processes of its own code for as long as it lives, which have to understand it. Where the directory is not
    this user's alone there is no copy, because others could change it; the shim refuses such a directory.
    """
    try:
        found = state_dir.stat()
        if found.st_uid != os.getuid() or found.st_mode & 0o077:
            return WORKER
        digest = hashlib.sha256()
        for file in sorted(WORKER.rglob("*.py")):
            digest.update(str(file.relative_to(WORKER)).encode() + b"\0" + file.read_bytes())
        copy = state_dir / CODE / digest.hexdigest()[:16]
        if not copy.is_dir():
            copy.parent.mkdir(mode=0o700, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(dir=copy.parent))
            # With what Python has compiled of it, where that is there.
            shutil.copytree(WORKER, unfinished, ignore=shutil.ignore_patterns("*.pyc.*"), dirs_exist_ok=True)
            try:
                unfinished.rename(copy)
            except OSError:  # another one was quicker
                shutil.rmtree(unfinished)
        return copy
    except OSError as error:
        log.warning("the worker's code cannot be copied; an upgrade may disturb its processes", error=str(error))
        return WORKER


def _remove_others(worker: Path) -> None:
    """Remove the code of shims that were here before: there is one at a time."""
    if worker != WORKER:
        for other in worker.parent.iterdir():
            if other != worker:
                shutil.rmtree(other, ignore_errors=True)


def spec_of(
    args: Sequence[str],
    env: Mapping[str, str],
    memory: int | None,
    mounts: Sequence[Mapping[str, Any]],
    user: Mapping[str, Any] | None = None,
    network: Mapping[str, Any] | None = None,
    engine: Mapping[str, Any] | None = None,
) -> bytes:
    """The spec that a child reads (see `wasmlet.worker.wire`); `memory` in bytes, None: no limit."""
    spec = {"args": list(args), "env": list(env.items()), "memory": memory, "mounts": list(mounts), "user": user}
    if network is not None:
        spec["network"] = network
    if engine:
        spec["engine"] = engine
    return encoded(spec)


def encoded(message: Mapping[str, Any]) -> bytes:
    """This as JSON. `wasmlet.worker.wire` does the same, with the standard library alone, and takes longer."""
    return orjson.dumps(message, default=tuple)  # named ones


def decoded(data: bytes) -> wire.Message:
    """The message that these bytes are, as `wire.unpack` has it, which takes longer.

    Raises:
        WireError: they are not one JSON object.
    """
    with contextlib.suppress(ValueError):
        if isinstance(message := orjson.loads(data), dict):
            return message
    return wire.unpack(data)  # Python's own takes more for JSON, such as half a surrogate pair
