"""`Engine`: what is different between one WebAssembly engine and another, on the node's side.

The other half of an engine is its in-worker module, a file with three functions: `wasmlet.worker.guest.engines` says
which. `RuntimeProvider(engine)` does the rest.
"""

from __future__ import annotations

import abc
import functools
import hashlib
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Self

from wasmlet.runtime.linking import Links

Isolation = Literal["process", "dense"]
PROCESS: Isolation = "process"
"""Each container has a process of its own."""
DENSE: Isolation = "dense"
"""Containers of one namespace share a process, each on a thread."""


class EngineSettings(Protocol):
    """What of a node's settings (`RuntimeConfig`) is an engine's to use."""

    @property
    def engine_python(self) -> Path | None:
        """The interpreter of engines that need one of their own; None where it was not set."""
        ...


class Engine(abc.ABC):
    """One WebAssembly engine. Abstract: `name`, `version`, `guest_module`.

    Class attributes:
        name: lower case, no spaces (`wasmtime`).
        handlers: RuntimeClass handlers whose pods it runs, and how each keeps guests apart. The first is what pods
            without a RuntimeClass get, if this is the node's first engine.
        components: in which of these ways it runs components (WASI preview 2 commands); modules it runs in all of them.
        links: what guests may import from it. What imports something else is refused before it is compiled; None leaves
            that to `compile` of the in-worker module, which sees it late.
        sockets: whether guests have the listeners and connections that their pod was granted.
    """

    name: ClassVar[str]
    handlers: ClassVar[Mapping[str, Isolation]] = {"wasmlet": PROCESS}
    components: ClassVar[Collection[Isolation]] = ()
    links: ClassVar[Links | None] = None
    sockets: ClassVar[bool] = False

    @classmethod
    def configured(cls, config: EngineSettings) -> Self:
        """The engine as a node's configuration wants it (`config.engine_python` where it needs an interpreter)."""
        return cls()

    @property
    @abc.abstractmethod
    def version(self) -> str:
        """The engine's own version. Compiled modules of another version are never used."""

    @property
    @abc.abstractmethod
    def guest_module(self) -> Path:
        """The in-worker module, loaded by path under `python`."""

    @property
    def dense_module(self) -> Path:
        """The in-worker module of the class `DENSE`, where it has one; see `wasmlet.worker.guest.dense`."""
        raise NotImplementedError(f"engine {self.name} has a handler of class {DENSE!r} and no module for it")

    @property
    def python(self) -> Path:
        """The interpreter that has the engine; this process's own by default."""
        return Path(sys.executable)

    @property
    def settings(self) -> str:
        """Whatever else of the engine's configuration makes compiled modules differ; part of their cache key."""
        return ""

    async def check(self) -> None:  # noqa: B027 - an engine may have nothing to check
        """Find out whether the engine can run on this machine.

        Raises:
            ConfigError: it cannot; the message says what to do.
        """


def worker_version(engine: Engine, module: Path) -> str:
    """A text that is another one for each version of the engine and of its in-worker module's directory."""
    return f"{engine.version}-{_digest(module.parent)}"


@functools.cache
def _digest(directory: Path) -> str:
    """A digest of the Python files in a directory, as they were when this was first called."""
    digest = hashlib.sha256()
    for file in sorted(directory.rglob("*.py")):
        digest.update(file.relative_to(directory).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
