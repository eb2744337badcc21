"""Ends what demos have left that were killed: the shim of their node, and its guests, which outlive a node.

A demo holds a lock in its directory for as long as it lives. Only directories of this user are looked at, and the shim
of one is asked to end over its socket there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from wasmlet.cli.demo.follow import Say
from wasmlet.clock import SystemClock
from wasmlet.errors import WasmletError
from wasmlet.model.hosts import Dns
from wasmlet.runtime.config import RuntimeConfig
from wasmlet.runtime.files.claims import Claims
from wasmlet.runtime.files.memory import Memory
from wasmlet.runtime.files.storage import Storage
from wasmlet.runtime.shim.client import ShimClient

PREFIX = "wasmlet-demo-"
RUNTIME = Path("node", "runtime")
"""Where the node's provider has its state, in a demo's directory."""
_LOCK, _SHIM_LOCK = "lock", "shim.lock"
_SECONDS = 20.0


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A directory for a demo, with its lock held; it is removed afterwards. Blocks."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as made:
        new = Path(made, ".lock")
        with new.open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            new.rename(Path(made, _LOCK))  # which is held from its beginning
            yield Path(made)


async def end(say: Say) -> None:
    """End what demos have left that do not live any more, and remove their directories."""
    for place in await asyncio.to_thread(lambda: sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))):
        with contextlib.suppress(OSError, WasmletError, TimeoutError):  # another demo may be at it, too
            async with asyncio.timeout(_SECONDS):
                await _end(place, say)


async def _end(place: Path, say: Say) -> None:
    found = await asyncio.to_thread(place.lstat)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        return
    state = place / RUNTIME
    if not await asyncio.to_thread(state.is_dir):  # the nodes of a pool end with their demo, and need their files
        return
    with (place / _LOCK).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # it lives
            return
        if await asyncio.to_thread(_shim_lives, state):
            client = ShimClient(state, SystemClock(), 1.0, lambda record: None)
            await client.start()
            await client.shutdown(force=True)
        await asyncio.to_thread(_remove, place, state)
    say(f"ended what a demo that was killed has left in {place}")


def _shim_lives(state: Path) -> bool:
    try:
        with (state / _SHIM_LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _remove(place: Path, state: Path) -> None:
    """Remove the files of its pods, some of which are mounted or in memory, and then the directory."""
    memory, host_paths = Memory(state), RuntimeConfig().host_paths()
    Storage(state, memory, host_paths, Claims(None, host_paths), Dns()).remove_orphans(set())
    if (in_memory := memory.existing()) is not None:
        shutil.rmtree(in_memory)
    shutil.rmtree(place)
