"""The interface of an engine's in-worker module: the functions that zygote, child, dense worker and compiler call.

An in-worker module does not import wasmlet, so it does not import these protocols. Instead, each provider has a module
in which mypy checks that its in-worker modules have these functions. `zygote.load` loads one from its file.

Each function raises `ValueError` if the WebAssembly module is at fault, with a message for the pod's owner.

More names are optional, so they are not part of the protocols:
- `warm(prepared)`: called in a spare child that waits, to do work that a start needs and that needs no guest.
- `stock(prepared)`: the same in a dense worker, called by its main thread at first and whenever a guest has begun.
- `REQUIRES`: names of the parts of `confine` without which the engine is not safe. Its guests run only if these are on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Engine(Protocol):
    """An in-worker module for guests that have a process of their own."""

    def prepare(self) -> Any:
        """Called once in the zygote; must start no threads. What it returns is handed to the other functions."""
        ...

    def run(self, prepared: Any, spec: dict[str, Any], module: str, started: Callable[[], None]) -> tuple[int, str]:
        """Run one guest to its end, in the child.

        Args:
            spec: see `wire`; each of its `mounts` has the path of its `directory` here.
            module: path of the compiled module.
            started: call this when everything is ready and the guest begins.

        Returns:
            Its exit code, and the text of a trap.
        """
        ...

    def compile(self, wasm: bytes) -> bytes:
        """Compile a module; returns the compiled module. Called in a process of its own (`compiler`)."""
        ...


class DenseGuest(Protocol):
    """One guest among others in a process."""

    def run(self, started: Callable[[int], None]) -> tuple[int, str, bool]:
        """Run it to its end, once, and let go of everything.

        Args:
            started: call this when the guest begins, with the address of its memory.

        Returns:
            Its exit code, the text of a trap, and whether it ended because it was interrupted.
        """
        ...

    def interrupt(self) -> None:
        """Make the guest end. Any thread may call this at any time."""
        ...


class DenseEngine(Engine, Protocol):
    """An in-worker module for guests that share a process (`dense`)."""

    @property
    def STACK(self) -> int:  # noqa: N802 - a constant of the module
        """Bytes of a thread's stack, enough for the deepest recursion that the engine lets a guest have."""
        ...

    def load(self, prepared: Any, module: str) -> Any:
        """Load the compiled module in this file; all containers that run it share the result."""
        ...

    @property
    def Guest(self) -> Callable[[Any, Any, dict[str, Any], str, str], DenseGuest]:  # noqa: N802 - a class there
        """Makes a guest of what `prepare` and `load` returned, the spec, and the paths of its stdout and stderr."""
        ...
