"""What an engine's in-worker module has: the functions that a zygote, a child, a dense worker and a compiler call.

An engine's module knows nothing of wasmlet, so it does not import these; each provider has a module for mypy that
assigns its in-worker modules to them. `zygote.load` loads one from its file.

Each function raises `ValueError` where the module that it is given is at fault, with a message for its owner.

Two things are optional, so they are not here: `warm(prepared)`, called in a child that waits, for what of a start can
be done without a guest; and `REQUIRES`, names of the parts of `confine` that the engine is not safe without (its guests
run only where these are on).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Engine(Protocol):
    """A module for guests with processes of their own."""

    def prepare(self) -> Any:
        """Called once in the zygote; must start no threads. What it returns is handed to the other functions."""
        ...

    def run(self, prepared: Any, spec: dict[str, Any], module: str, started: Callable[[], None]) -> tuple[int, str]:
        """Run one guest to its end, in the child.

        Args:
            spec: see `wire`; each of its `mounts` has the path of its `directory` here.
            module: path of the compiled module.
            started: to be called when all is ready and the guest begins.

        Returns:
            Its exit code, and the text of a trap.
        """
        ...

    def compile(self, wasm: bytes) -> bytes:
        """The compiled module; called in a process of its own (`compiler`)."""
        ...


class DenseGuest(Protocol):
    """One guest among others in a process."""

    def run(self, started: Callable[[int], None]) -> tuple[int, str, bool]:
        """Run it to its end, once, and let go of everything.

        Args:
            started: to be called with the address of its memory when it begins.

        Returns:
            Its exit code, the text of a trap, and whether it ended because it was interrupted.
        """
        ...

    def interrupt(self) -> None:
        """Have it end. Any thread may call it at any time."""
        ...


class DenseEngine(Engine, Protocol):
    """A module for guests that share a process (`dense`)."""

    @property
    def STACK(self) -> int:  # noqa: N802 - a constant of the module
        """Bytes of a thread's stack, enough for the deepest recursion that the engine lets a guest have."""
        ...

    def load(self, prepared: Any, module: str) -> Any:
        """The compiled module in the file of this path, for all containers that run it."""
        ...

    @property
    def Guest(self) -> Callable[[Any, Any, dict[str, Any], str, str], DenseGuest]:  # noqa: N802 - a class there
        """Makes a guest of what `prepare` and `load` returned, the spec, and the paths of its stdout and stderr."""
        ...
