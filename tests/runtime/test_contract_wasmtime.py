"""The wasmtime provider is held to the contract, with real guests in real processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from wasmlet_wasmtime import WasmtimeProvider

from wasmlet.testing import ProviderContract


class TestWasmtimeProvider(ProviderContract):
    survives = True

    @pytest.fixture(autouse=True)
    def _image(self, image: str) -> None:
        self.image = image

    def make_provider(self) -> WasmtimeProvider:
        return WasmtimeProvider(WasmtimeProvider.Config(allow_local_modules=True, shim_idle_exit=1.0))

    def container(
        self, *, lines: Sequence[str] = (), exit_code: int | None = None, after: float = 0.0, stubborn: bool = False
    ) -> dict[str, Any]:
        """Instructions for the driver, which sleeps in whole seconds. A guest has no say in when it is ended."""
        args = [word for line in lines for word in ("print", line)]
        if exit_code is None:
            args += ["sleep", "100000"]
        else:
            args += ["sleep", "1"] if after else []
            args += ["exit", str(exit_code)]
        return {"image": self.image, "args": args}

    def refused(self) -> dict[str, Any]:
        return {"containers": [{"livenessProbe": {"httpGet": {"port": 80}}}]}
