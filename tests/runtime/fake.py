"""An engine of a few lines over the worker tests' in-worker module: what it takes to add one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tests.worker.harness import FAKE_ENGINE
from wasmlet.clock import Clock
from wasmlet.runtime import Engine, RuntimeConfig, RuntimeProvider


class FakeEngine(Engine):
    name: ClassVar[str] = "fake"

    def __init__(self, version: str = "1", settings: str = "") -> None:
        self._version = version
        self._settings = settings

    @property
    def version(self) -> str:
        return self._version

    @property
    def settings(self) -> str:
        return self._settings

    @property
    def guest_module(self) -> Path:
        return FAKE_ENGINE


class FakeProvider(RuntimeProvider):
    name: ClassVar[str] = "fake"

    def __init__(self, config: RuntimeConfig | None = None, *, clock: Clock | None = None) -> None:
        super().__init__(FakeEngine(), config, clock=clock)
