"""What a provider author tests with: an embedded control plane that real kubectl can use, and pytest fixtures.

    import asyncio
    from wasmlet.testing import ControlPlane

    async def main() -> None:
        async with ControlPlane() as cp:
            print(f"kubectl --kubeconfig {cp.kubeconfig} get nodes")
            node = cp.node_kubeconfig("n1")     # what a node's process is given: the identity system:node:n1
            await asyncio.sleep(3600)

With pytest, the fixture `control_plane` is a `ControlPlane` that runs. `ProviderContract` holds a provider to what the
node loop relies on (see `wasmlet.testing.contract`), and `ReferenceProvider` is one that passes it and runs nothing.
`FakeClock` stands still until a test moves it, and `FaultProxy` delays, drops or repeats requests to an HTTP server.
Importing this package costs nothing until a name is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wasmlet.controlplane.control_plane import ControlPlane
    from wasmlet.testing.clock import FakeClock
    from wasmlet.testing.contract import ProviderContract
    from wasmlet.testing.fault_proxy import FaultProxy
    from wasmlet.testing.reference import ReferenceProvider

__all__ = ["ControlPlane", "FakeClock", "FaultProxy", "ProviderContract", "ReferenceProvider"]

_MODULES = {
    "ControlPlane": "wasmlet.controlplane.control_plane",
    "FakeClock": "wasmlet.testing.clock",
    "FaultProxy": "wasmlet.testing.fault_proxy",
    "ProviderContract": "wasmlet.testing.contract",
    "ReferenceProvider": "wasmlet.testing.reference",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
