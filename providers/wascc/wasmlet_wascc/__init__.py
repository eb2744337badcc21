"""waSCC as a wasmlet provider: `WasccProvider`, and `wasmlet-wascc` on the command line.

waSCC runs actors. An actor is a signed WebAssembly module that answers requests. It may use capabilities, such as a
key-value store. Its host provides them, and its signature lists those that it may use; it gets nothing else.

- `claims` and `nkeys` read and make signatures;
- `grants` decides which capabilities an actor gets;
- `engine` is the part that runs in the node's process;
- `worker` is the part that runs in each actor's own process.
"""

from __future__ import annotations

from typing import ClassVar

from wasmlet import Clock
from wasmlet.runtime import RuntimeConfig, RuntimeProvider
from wasmlet_wascc.claims import BadClaims, Claims
from wasmlet_wascc.engine import WasccEngine
from wasmlet_wascc.nkeys import BadKey, PublicKey, Seed

__all__ = ["BadClaims", "BadKey", "Claims", "PublicKey", "Seed", "WasccEngine", "WasccProvider", "main"]


class WasccProvider(RuntimeProvider):
    """Runs pods as actors, a process for each container."""

    name: ClassVar[str] = "wascc"

    def __init__(self, config: RuntimeConfig | None = None, *, clock: Clock | None = None) -> None:
        super().__init__(WasccEngine.configured(config or RuntimeConfig()), config, clock=clock)


def main() -> None:
    """`wasmlet-wascc`: `wasmlet run` with this provider."""
    from wasmlet.cli import main_for

    main_for("wascc")
