"""waSCC as a wasmlet provider: `WasccProvider`, and `wasmlet-wascc` on the command line.

An actor is a module that is signed, says in its signature what it may use, and gets that from its host and nothing
else. `claims` and `nkeys` read and make signatures, `grants` decides, `engine` is the node's half; `worker` is what
runs in an actor's process.
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
