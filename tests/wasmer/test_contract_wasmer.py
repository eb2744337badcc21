"""The wasmer provider is held to the contract, with real guests in real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from wasmlet_wasmer import WasmerProvider

from tests.runtime.test_contract_wasmtime import TestWasmtimeProvider as OverWasmtime
from wasmlet.errors import InvalidInput
from wasmlet.testing.contract.streams import Client
from wasmlet.testing.contract.trial import Trial


class TestWasmerProvider(OverWasmtime):
    """The driver takes the same instructions."""

    @pytest.fixture(autouse=True)
    def _needs(self, wasmer: Path) -> None:
        pass

    def make_provider(self) -> WasmerProvider:  # type: ignore[override] # another engine
        return WasmerProvider(WasmerProvider.Config(allow_local_modules=True, shim_idle_exit=1.0))

    async def test_port_forward_passes_bytes_both_ways(self, trial: Trial) -> None:
        """Without a network, whoever asks hears so."""
        with pytest.raises(InvalidInput, match="has no network: nothing can be forwarded to it"):
            await trial.provider.port_forward((await trial.running()).key, 80, Client())


del OverWasmtime  # or it would be collected here as well
