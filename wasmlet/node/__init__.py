"""The node loop: registration, lease, one task per pod, statuses, the end."""

from wasmlet.node.config import NodeConfig
from wasmlet.node.node import Node, run

__all__ = ["Node", "NodeConfig", "run"]
