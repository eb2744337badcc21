"""The wasmtime provider is held to the contract, with real guests in real processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.dense import DenseProvider
from wasmlet.errors import InvalidInput
from wasmlet.testing import ProviderContract
from wasmlet.testing.contract.streams import Client
from wasmlet.testing.contract.trial import Trial


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

    def command(
        self, *, says: str = "", complains: str = "", copies: bool = False, stays: bool = False, exit_code: int = 0
    ) -> list[str]:
        """A second instance of the driver, with instructions of its own."""
        words = ["driver"]
        words += ["print", says] if says else []
        words += ["error", complains] if complains else []
        words += ["copy"] if copies else []
        return [*words, "sleep", "100000"] if stays else [*words, "exit", str(exit_code)]

    def refused(self) -> dict[str, Any]:
        return {"containers": [{"livenessProbe": {"httpGet": {"port": 80}}}]}

    async def test_port_forward_passes_bytes_both_ways(self, trial: Trial) -> None:
        """Without a network, whoever asks hears so."""
        with pytest.raises(InvalidInput, match="has no network: nothing can be forwarded to it"):
            await trial.provider.port_forward((await trial.running()).key, 80, Client())

    test_port_forward_to_a_port_where_nothing_listens = None  # type: ignore[assignment] # as it is with any port


class TestDenseProvider(TestWasmtimeProvider):
    """The same with all containers of a namespace in one process."""

    def make_provider(self) -> DenseProvider:  # type: ignore[override]
        return DenseProvider(DenseProvider.Config(allow_local_modules=True, shim_idle_exit=1.0))

    async def test_port_forward_passes_bytes_both_ways(self, trial: Trial) -> None:
        with pytest.raises(InvalidInput, match="has no network: nothing can be forwarded to it"):
            await trial.provider.port_forward((await trial.running()).key, 80, Client())
