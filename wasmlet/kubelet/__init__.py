"""The node's HTTPS API: what `kubectl logs` and the API server reach a node through, as they reach a kubelet."""

from wasmlet.kubelet.auth import Guard
from wasmlet.kubelet.pods import PodSource
from wasmlet.kubelet.reviews import Reviews
from wasmlet.kubelet.server import KubeletServer, NodeFacts

__all__ = ["Guard", "KubeletServer", "NodeFacts", "PodSource", "Reviews"]
