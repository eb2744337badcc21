"""The network `none`: pods have no address, nobody can connect to them, and they cannot connect to anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from wasmlet.runtime.network.network import POLICY_ANNOTATION, Network, NetworkRequest, PodNetwork


class NoNetwork(Network):
    """No pod has a network."""

    name: ClassVar[str] = "none"

    async def check(self) -> None:
        """Nothing is needed."""

    async def add(self, request: NetworkRequest) -> PodNetwork | None:
        return None

    async def remove(self, uid: str) -> None:
        """No pod has one."""

    async def list(self) -> Mapping[str, PodNetwork]:
        return {}

    def remarks(self) -> Mapping[str, str]:
        return {POLICY_ANNOTATION: "not enforced: pods have no network"}
