"""wasmer as a wasmlet provider: `WasmerProvider`, and `wasmlet-wasmer` on the command line.

wasmer exists for Python 3.10 and older, wasmlet for 3.11 and newer; so its workers run under an interpreter of their
own, which `environment` finds and `wasmlet-wasmer setup` makes. In them is `guest`; the rest is `wasmlet.runtime`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from wasmlet import Clock, ConfigError
from wasmlet.runtime import (
    PREVIEW0,
    PREVIEW0_FUNCTIONS,
    PREVIEW1,
    PREVIEW1_FUNCTIONS,
    PROCESS,
    Engine,
    EngineSettings,
    Isolation,
    Links,
    RuntimeConfig,
    RuntimeProvider,
    confinement_report,
)
from wasmlet_wasmer.environment import WASMER, find

__all__ = ["WasmerEngine", "WasmerProvider", "main"]


class WasmerEngine(Engine):
    """wasmer under an interpreter of its own.

    Args:
        python: the interpreter; without it one is looked for.
    """

    name: ClassVar[str] = "wasmer"
    handlers: ClassVar[Mapping[str, Isolation]] = {"wasmlet-wasmer": PROCESS}
    links: ClassVar[Links | None] = Links(
        {
            PREVIEW0: PREVIEW0_FUNCTIONS,
            PREVIEW1: {name: kind for name, kind in PREVIEW1_FUNCTIONS.items() if name != "sock_accept"},
        },
        memory=True,
    )

    def __init__(self, python: Path | None = None) -> None:
        self._given = python
        self._python: Path | None = None

    @classmethod
    def configured(cls, config: EngineSettings) -> Self:
        return cls(config.engine_python)

    @property
    def version(self) -> str:
        """Of wasmer and its compiler; there is one that `check` lets pass."""
        return WASMER

    @property
    def settings(self) -> str:
        return "cranelift"

    @property
    def guest_module(self) -> Path:
        return Path(__file__).with_name("guest.py")

    @property
    def python(self) -> Path:
        if self._python is None:
            raise ConfigError("the interpreter that has wasmer is not known before check()")
        return self._python

    async def check(self) -> None:
        """Find the interpreter, and see that the kernel can confine what runs in it.

        Raises:
            ConfigError: it cannot, or there is none; says where it was looked for, and what to do.
        """
        landlock = confinement_report()["landlock"]
        if landlock.startswith("off"):
            raise ConfigError(f"wasmer does not keep guests to their mounts; it needs landlock for that: {landlock}")
        self._python = await find(self._given, os.environ)


class WasmerProvider(RuntimeProvider):
    """Runs pods with wasmer, a process for each container."""

    name: ClassVar[str] = "wasmer"

    def __init__(self, config: RuntimeConfig | None = None, *, clock: Clock | None = None) -> None:
        super().__init__(WasmerEngine.configured(config or RuntimeConfig()), config, clock=clock)


def main() -> None:
    """`wasmlet-wasmer`: `wasmlet run` with this provider; `wasmlet-wasmer setup` makes its environment."""
    if sys.argv[1:2] == ["setup"]:
        from wasmlet_wasmer.setup import setup

        setup(sys.argv[2:], "wasmlet-wasmer setup")
    from wasmlet.cli import main_for

    main_for(
        "wasmer",
        more="wasmer needs a Python 3.10 of its own. `wasmlet-wasmer setup` makes it; run that once, before the first "
        "node. `wasmlet-wasmer setup --help` has its options.",
    )
