"""The contract over the wire: RemoteProvider, and behind it an agent in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from wasmlet_remote import RemoteProvider

from tests.remote.agents import REAL, REFERENCE
from tests.remote.lasting_agent import lasting_agent
from tests.runtime.test_contract_wasmtime import TestWasmtimeProvider as OfWasmtime
from tests.testing.test_contract_reference import TestReferenceProvider as OfReference
from wasmlet.errors import InvalidInput
from wasmlet.testing.contract.streams import Client
from wasmlet.testing.contract.trial import Trial


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with lasting_agent(tmp_path_factory.mktemp("reference"), *REFERENCE) as url:
        yield url


@pytest.fixture(scope="module")
def wasmtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    options = ("--provider=wasmtime", "--allow-local-modules", "--shim-idle-exit=1")
    with lasting_agent(tmp_path_factory.mktemp("wasmtime"), *REAL, *options) as url:
        yield url


class TestReferenceBehindAnAgent(OfReference):
    """Its pods live as long as the agent's process, whatever becomes of the node loop."""

    survives = True

    @pytest.fixture(autouse=True)
    def _agent(self, reference: str) -> None:
        self.agent = reference

    def make_provider(self) -> Any:
        return RemoteProvider(RemoteProvider.Config(endpoint=self.agent))


class TestWasmtimeBehindAnAgent(OfWasmtime):
    @pytest.fixture(autouse=True)
    def _agent(self, wasmtime: str) -> None:
        self.agent = wasmtime

    def make_provider(self) -> Any:
        return RemoteProvider(RemoteProvider.Config(endpoint=self.agent))

    async def test_port_forward_passes_bytes_both_ways(self, trial: Trial) -> None:
        with pytest.raises(InvalidInput, match="has no network: nothing can be forwarded to it"):
            await trial.provider.port_forward((await trial.running()).key, 80, Client())
