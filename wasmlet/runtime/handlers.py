"""The RuntimeClass handlers that a node offers: each says which engine runs a pod, and how its guests are isolated.

A node may offer several engines; each names its handlers (`Engine.handlers`). A pod without a RuntimeClass gets the
first handler of the first engine. A pod keeps the handler with which it was started, whatever the node offers later.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import attrs

from wasmlet.errors import ConfigError, Refused
from wasmlet.names import not_installed
from wasmlet.runtime.config import RuntimeConfig
from wasmlet.runtime.engine import DENSE, Engine, worker_version
from wasmlet.runtime.images.compiler import Compiler
from wasmlet.worker.fields import ZygoteKey

GROUP = "wasmlet.engines"
"""The entry-point group in which distributions announce their engines."""


@attrs.frozen
class Handler:
    """What runs the pods of one RuntimeClass.

    Attributes:
        name: the RuntimeClass's `handler`.
        dense: many containers share a worker process; else each has one of its own.
    """

    name: str
    engine: Engine
    compiler: Compiler
    dense: bool

    @functools.cached_property
    def zygote(self) -> ZygoteKey:
        """The zygote that can run anything of this handler."""
        return self._zygote(self.engine.dense_module if self.dense else self.engine.guest_module)

    @functools.cached_property
    def plain_zygote(self) -> ZygoteKey:
        """The zygote for modules that are plain (`linking.Uses`), as most are; see `zygote`."""
        module = None if self.dense else self.engine.plain_module
        return self.zygote if module is None else self._zygote(module)

    def _zygote(self, module: Path) -> ZygoteKey:
        return ZygoteKey(str(self.engine.python), str(module), worker_version(self.engine, module))

    def sharing(self, namespace: str, state_dir: Path) -> Mapping[str, Any]:
        """With whom containers of a namespace share a process, as `wasmlet.worker.wire` has it for `run`.

        Args:
            state_dir: of the provider. Pods' files are in its directory `pods`, and in the one that its link `memory`
                leads to.
        """
        return {"dense": namespace, "within": _within(state_dir)} if self.dense else {}


@functools.lru_cache
def _within(state_dir: Path) -> tuple[str, ...]:
    return f"{state_dir.absolute()}/pods", f"{state_dir.absolute()}/memory/pods"


class Handlers:
    """All that a node offers, in the order of its engines.

    Args:
        compiler: makes the compiler of an engine, for its dense handlers or the others.

    Raises:
        ConfigError: two engines have a handler of one name.
    """

    def __init__(self, engines: Sequence[Engine], compiler: Callable[[Engine, bool], Compiler]) -> None:
        self.engines = tuple(engines)
        self.compilers: list[Compiler] = []
        self._found: dict[str, Handler] = {}
        for engine in engines:
            compilers = {dense: compiler(engine, dense) for dense in {way == DENSE for way in engine.handlers.values()}}
            self.compilers += compilers.values()
            for name, isolation in engine.handlers.items():
                if (other := self._found.get(name)) is not None:
                    raise ConfigError(
                        f"engines {other.engine.name} and {engine.name} both have a RuntimeClass handler {name!r}; "
                        "a node can offer one of them"
                    )
                self._found[name] = Handler(name, engine, compilers[isolation == DENSE], isolation == DENSE)
        self.default = next(iter(self._found.values()))

    def of(self, name: str) -> Handler:
        """The handler of that name; "" is the default.

        Raises:
            Refused: the node does not offer it (any more).
        """
        found = self._found.get(name) if name else self.default
        if found is None:
            raise Refused(
                "spec.runtimeClassName",
                f"this node offers no handler {name!r} any more; it offers {', '.join(self._found)}",
            )
        return found


def engines_of(first: Engine, config: RuntimeConfig) -> list[Engine]:
    """A provider's own engine, and those that the configuration adds to it.

    Raises:
        ConfigError: one of them is not installed, or cannot be imported here.
    """
    found = {first.name: first}
    points = {point.name: point for point in entry_points(group=GROUP)}
    for name in config.engine:
        if name in found:
            continue
        if name not in points:
            raise ConfigError("--engine: " + not_installed("engine", name, {*points, first.name}))
        try:
            kind = points[name].load()
        except Exception as error:
            raise ConfigError(f"--engine {name}: cannot be used here: {type(error).__name__}: {error}") from error
        if not (isinstance(kind, type) and issubclass(kind, Engine)):
            raise ConfigError(f"--engine {name}: its entry point names {kind!r}, which is no subclass of Engine")
        found[name] = kind.configured(config)
    return list(found.values())
