"""The provider keeps the contract; its containers are the shell commands that the suite asks for by default."""

from __future__ import annotations

from typing import Any

from wasmlet_processes import ProcessProvider

from wasmlet.testing import ProviderContract


class TestProcessProvider(ProviderContract):
    def make_provider(self) -> ProcessProvider:
        return ProcessProvider()

    def refused(self) -> dict[str, Any]:
        return {"containers": [{"livenessProbe": {"exec": {"command": ["true"]}}}]}
