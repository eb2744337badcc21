"""`Engine`: the base class for WebAssembly engines, with everything that differs between engines on the node's side.

The other half of an engine is its in-worker module: a file that the worker processes load, which compiles modules and
runs guests. `wasmlet.worker.guest.engines` describes its functions. `RuntimeProvider(engine)` does the rest.
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
    """The part of a node's settings (`RuntimeConfig`) that engines may use."""

    @property
    def engine_python(self) -> Path | None:
        """The interpreter of engines that need one of their own; None where it was not set."""
        ...

    @property
    def wascc_issuers(self) -> tuple[str, ...]:
        """For a waSCC engine: the issuers whose signed actors it runs; empty: those of any issuer."""
        ...


@attrs.frozen
class GuestSettings:
    """An engine's settings for one instance of a container.

    Attributes:
        spec: values for the in-worker module, which finds them in the spec as `engine`. They may be secret.
        remarks: (reason, message) of warning events for the pod's owner, sent before the start.
        serves: whether the container serves HTTP. Then it gets a TCP port, even if it declares none.
    """

    spec: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    remarks: tuple[tuple[str, str], ...] = ()
    serves: bool = False


@attrs.frozen
class Needs:
    """What a pod must have in its manifest so that a module can run, besides the image; for `wasmlet inspect`.

    Attributes:
        annotations: annotations of the pod; words in capital letters are for the pod's author to replace.
        serves: whether the module serves HTTP.
        volumes: names of the volumes that the module uses.
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
        components: the kinds of isolation with which it can run components, too. It runs core modules with all kinds.
        links: what guests may import. A guest that imports something else is refused before it is compiled. With None,
            `compile` of the in-worker module finds out, which is later.
        sockets: whether guests can use the network, as far as their pod was granted it.
        examines: whether `examine` is to be called for each module, before anything else is done with it.
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
    def plain_module(self) -> Path | None:
        """The in-worker module of core modules that use no sockets and have a process each; None: `guest_module`.

        A smaller one makes such containers start and end faster, since its processes have less memory. `guest_module`
        compiles for it.
        """
        return None

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
        """The settings of the engine that compiled modules depend on. They are part of the key in the cache."""
        return ""

    async def check(self) -> None:  # noqa: B027 - an engine may have nothing to check
        """Find out whether the engine can run on this machine.

        Raises:
            ConfigError: it cannot; the message says what to do.
        """

    def check_pod(self, pod: Pod) -> None:  # noqa: B027 - most engines take what a node takes
        """Check whether the engine supports what the manifest asks for. The checks for all engines are done elsewhere.

        Raises:
            Refused: it does not; names the field.
        """

    def examine(self, wasm: bytes | memoryview) -> Any:
        """Find out facts about a module that the node needs: who has signed it, for example. May block.

        Called if `examines`, once for each module before it is compiled, and again by another node loop.

        Returns:
            The facts, in any form; `guest_settings` gets them.

        Raises:
            ValueError: the module must never be run; the message says why.
        """
        raise NotImplementedError(f"engine {self.name} examines modules and has no way to do it")

    @classmethod
    def shown(cls, facts: Any) -> Mapping[str, str]:
        """The facts that `wasmlet inspect` shows: values by name; a name has at most ten letters."""
        return {}

    @classmethod
    def needs(cls, facts: Any) -> Needs:
        """What a pod needs to run a module with these facts; `wasmlet inspect` shows it."""
        return Needs()

    def guest_settings(self, pod: Pod, container: Container, facts: Any, now: float) -> GuestSettings:
        """The engine's settings for the next instance of a container.

        Args:
            facts: the result of `examine`; None if the engine does not examine modules.
            now: the time, in seconds since 1970.

        Raises:
            Refused: the container must not be started, now or with this manifest; names the field.
        """
        return GuestSettings()


def worker_version(engine: Engine, module: Path) -> str:
    """A version text that changes with the engine's version and with the files beside its in-worker module."""
    return f"{engine.version}-{_digest(module.parent)}"


@functools.cache
def _digest(directory: Path) -> str:
    """A digest of the Python files in a directory, as they were when this was first called."""
    digest = hashlib.sha256()
    for file in sorted(directory.rglob("*.py")):
        digest.update(file.relative_to(directory).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
