"""What a provider author tests with: an embedded control plane that real kubectl can use, and pytest fixtures.

    import asyncio
    from wasmlet.testing import ControlPlane

    async def main() -> None:
        async with ControlPlane() as cp:
            print(f"kubectl --kubeconfig {cp.kubeconfig} get nodes")
            node = cp.node_kubeconfig("n1")     # what a node's process is given: the identity system:node:n1
            await asyncio.sleep(3600)

With pytest, the fixture `control_plane` is one that runs. Importing this package costs nothing until a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wasmlet.testing.control_plane import ControlPlane

__all__ = ["ControlPlane"]


def __getattr__(name: str) -> Any:
    if name == "ControlPlane":
        from wasmlet.testing.control_plane import ControlPlane

        return ControlPlane
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
