"""The node loop: it registers a node, renews its lease, runs one task for each pod, and writes their statuses."""

from wasmlet.node.config import NodeConfig
from wasmlet.node.node import Node, run

__all__ = ["Node", "NodeConfig", "run"]
