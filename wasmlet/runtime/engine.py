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
from typing import Any, ClassVar, Literal, Protocol, Self

import attrs

from wasmlet.model.pod import Container, Pod
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

    @property
    def wascc_issuers(self) -> tuple[str, ...]:
        """Whose actors an engine of waSCC's runs; none: those of everybody who has signed one."""
        ...


@attrs.frozen
class GuestSettings:
    """What an engine wants for one instance of a container.

    Attributes:
        spec: values for its in-worker module, which finds them in the spec as `engine`. They may be secret.
        remarks: reasons and messages of events that warn the pod's owner before the start.
        serves: whether it serves HTTP. Then it has a TCP port, declared or not.
    """

    spec: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    remarks: tuple[tuple[str, str], ...] = ()
    serves: bool = False


@attrs.frozen
class Needs:
    """What a pod has to have for a module, beside its image.

    Attributes:
        annotations: annotations of the pod; the pod's author fills in words in capital letters.
        serves: whether it serves HTTP.
        volumes: names of the volumes that it works on.
    """

    annotations: Mapping[str, str] = attrs.field(factory=dict)
    serves: bool = False
    volumes: tuple[str, ...] = ()


class Engine(abc.ABC):
    """One WebAssembly engine. A subclass sets `name`, and implements `version` and `guest_module`.

    Attributes:
        name: the engine's name: lower case, no spaces (`wasmtime`).
        handlers: the RuntimeClass handlers whose pods it runs, and how each keeps guests apart. Pods without a
            RuntimeClass get the first one, if this is the node's first engine.
        components: the ways of keeping guests apart in which it runs components, too. It runs modules in all ways.
        links: what guests may import. A guest that imports something else is refused before it is compiled. With None,
            `compile` of the in-worker module finds out, which is later.
        sockets: whether guests have the listeners and connections that their pod was granted.
        examines: whether `examine` is called for each module before anything is done with it.
    """

    name: ClassVar[str]
    handlers: ClassVar[Mapping[str, Isolation]] = {"wasmlet": PROCESS}
    components: ClassVar[Collection[Isolation]] = ()
    links: ClassVar[Links | None] = None
    sockets: ClassVar[bool] = False
    examines: ClassVar[bool] = False

    @classmethod
    def configured(cls, config: EngineSettings) -> Self:
        """Make the engine for a node's settings (`engine_python` is for one that needs an interpreter of its own)."""
        return cls()

    @property
    @abc.abstractmethod
    def version(self) -> str:
        """The engine's version. Modules that another version has compiled are never used."""

    @property
    @abc.abstractmethod
    def guest_module(self) -> Path:
        """The file of the in-worker module, which the interpreter `python` loads."""

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
        """What else of the engine's settings makes compiled modules differ. It is part of their key in the cache."""
        return ""

    async def check(self) -> None:  # noqa: B027 - an engine may have nothing to check
        """Find out whether the engine can run on this machine.

        Raises:
            ConfigError: it cannot; the message says what to do.
        """

    def check_pod(self, pod: Pod) -> None:  # noqa: B027 - most engines take what a node takes
        """See whether the engine's guests can have what the manifest asks, beside what every node checks.

        Raises:
            Refused: they cannot; names the field.
        """

    def examine(self, wasm: bytes | memoryview) -> Any:
        """Find out what the node has to know of a module: who has signed it, for example. May block.

        Called if `examines`, once for each module before it is compiled, and again by another node loop.

        Returns:
            What `guest_settings` is given.

        Raises:
            ValueError: the module is not to be run, now or later; the message says why.
        """
        raise NotImplementedError(f"engine {self.name} examines modules and has no way to do it")

    @classmethod
    def shown(cls, facts: Any) -> Mapping[str, str]:
        """What `wasmlet inspect` shows of what `examine` has found: names, of at most ten letters, and values."""
        return {}

    @classmethod
    def needs(cls, facts: Any) -> Needs:
        """What `wasmlet inspect` says that a pod needs, from what `examine` has found."""
        return Needs()

    def guest_settings(self, pod: Pod, container: Container, facts: Any, now: float) -> GuestSettings:
        """What the engine wants of the next instance of a container.

        Args:
            facts: what `examine` has found; None where the engine examines nothing.
            now: seconds since 1970.

        Raises:
            Refused: it is not to be started, at this time or with this manifest; names the field.
        """
        return GuestSettings()


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
