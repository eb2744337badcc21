"""wasmtime as a wasmlet provider: `WasmtimeProvider`, and `wasmlet-wasmtime` on the command line.

This module runs on the node. `guest` and `dense`, and all that they import, run in the worker processes. What is the
same for all engines is in `wasmlet.runtime`.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

from wasmlet import Clock, ConfigError
from wasmlet.runtime import (
    DENSE,
    PREVIEW1,
    PREVIEW1_FUNCTIONS,
    PROCESS,
    Engine,
    Isolation,
    Links,
    RuntimeConfig,
    RuntimeProvider,
    Signature,
)
from wasmlet_wasmtime import functions

__all__ = ["WasmtimeEngine", "WasmtimeProvider", "main"]

_INTERFACES = {
    "cli": "environment exit stdin stdout stderr terminal-input terminal-output terminal-stdin terminal-stdout "
    "terminal-stderr",
    "clocks": "monotonic-clock wall-clock timezone",
    "filesystem": "types preopens",
    "http": "types outgoing-handler",
    "io": "error poll streams",
    "random": "random insecure insecure-seed",
    "sockets": "network instance-network udp udp-create-socket tcp tcp-create-socket ip-name-lookup",
}
"""What components may import, by the package of WASI: from wasmtime's own world, or from ours (`p2`)."""


_MACHINES = ("x86_64", "AMD64", "aarch64", "arm64")
"""What `platform.machine` says where there is a wheel of wasmtime."""


def _interfaces() -> list[str]:
    return [f"wasi:{package}/{name}@0.2" for package, names in _INTERFACES.items() for name in names.split()]


def _signatures(table: Mapping[str, str]) -> dict[str, Signature]:
    return {name: Signature(("i32",) * len(params), ("i32",)) for name, params in table.items()}


class WasmtimeEngine(Engine):
    """The wasmtime that is installed beside this package."""

    name: ClassVar[str] = "wasmtime"
    handlers: ClassVar[Mapping[str, Isolation]] = {"wasmlet": PROCESS, "wasmlet-dense": DENSE}
    components: ClassVar[Collection[Isolation]] = (PROCESS,)
    sockets: ClassVar[bool] = True
    links: ClassVar[Links | None] = Links(
        {
            PREVIEW1: PREVIEW1_FUNCTIONS | _signatures(functions.WASMEDGE),
            functions.HTTP_MODULE: _signatures(functions.HTTP),
        },
        _interfaces(),
        serves=True,
        others={PREVIEW1: _signatures(functions.SECOND)},
    )

    @functools.cached_property
    def version(self) -> str:
        return importlib.metadata.version("wasmtime")

    @property
    def guest_module(self) -> Path:
        return Path(__file__).with_name("guest.py")

    @property
    def plain_module(self) -> Path | None:
        return self.guest_module.with_name("plain.py")

    @property
    def dense_module(self) -> Path:
        return Path(__file__).with_name("dense.py")

    async def check(self) -> None:
        machine = platform.machine()
        if machine not in _MACHINES or sys.maxsize < 2**32:
            raise ConfigError(
                f"there is no wasmtime for this machine ({machine}): it is made for x86_64 and aarch64, 64 bits"
            )
        if importlib.util.find_spec("wasmtime") is None:
            raise ConfigError("wasmtime is not installed; try: pip install wasmlet-wasmtime")


class WasmtimeProvider(RuntimeProvider):
    """Runs pods with wasmtime, a process for each container."""

    name: ClassVar[str] = "wasmtime"

    def __init__(self, config: RuntimeConfig | None = None, *, clock: Clock | None = None) -> None:
        super().__init__(WasmtimeEngine(), config, clock=clock)


def main() -> None:
    """`wasmlet-wasmtime`: `wasmlet run` with this provider."""
    from wasmlet.cli import main_for

    main_for("wasmtime")
