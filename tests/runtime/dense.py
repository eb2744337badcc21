"""wasmtime with the dense class only, so that pods without a RuntimeClass get it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from wasmlet_wasmtime import WasmtimeEngine

from wasmlet.clock import Clock
from wasmlet.runtime import DENSE, Isolation, RuntimeConfig, RuntimeProvider


class DenseEngine(WasmtimeEngine):
    handlers: ClassVar[Mapping[str, Isolation]] = {"wasmlet-dense": DENSE}


class DenseProvider(RuntimeProvider):
    name: ClassVar[str] = "dense"

    def __init__(self, config: RuntimeConfig | None = None, *, clock: Clock | None = None) -> None:
        super().__init__(DenseEngine(), config, clock=clock)
