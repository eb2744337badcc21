"""The node's HTTPS API: what `kubectl logs` and the API server reach a node through, as they reach a kubelet."""

from wasmlet.kubelet.server import KubeletServer, PodSource

__all__ = ["KubeletServer", "PodSource"]
