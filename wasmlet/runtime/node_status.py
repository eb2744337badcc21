"""What a node that runs guests over engines says of itself: its machine, and what it can run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from wasmlet.provider import NodeImage, NodeStatus
from wasmlet.runtime import machine
from wasmlet.runtime.engine import Engine

_FEATURES = {"recursiveReadOnlyMounts": True, "userNamespaces": False}
"""Of each handler."""


async def node_status(
    engines: Sequence[Engine], directory: Path, images: Sequence[NodeImage], annotations: Mapping[str, str]
) -> NodeStatus:
    """The status of the node, but for what the node loop itself adds.

    Args:
        engines: the default one first.
        directory: of the pods' files; the disk that it is on counts.
        images: those that are on this node.
        annotations: of the Node.
    """
    return NodeStatus(
        capacity=await asyncio.to_thread(_capacity, directory),
        system_info={
            "containerRuntimeVersion": f"{engines[0].name}://{engines[0].version}",
            **await asyncio.to_thread(machine.identity),
        },
        runtime_handlers=("", *(name for engine in engines for name in engine.handlers)),
        images=images,
        annotations=annotations,
        operating_system="wasi",
        architecture="wasm",
        handler_features=_FEATURES,
    )


def _capacity(directory: Path) -> Mapping[str, str]:
    """Of the machine, and of the disk that the directory is on."""
    return machine.capacity() | machine.disk(directory)
