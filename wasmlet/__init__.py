"""wasmlet: make a Kubernetes node out of anything that can run a pod, first of all out of a WebAssembly engine."""

__version__ = "0.1.0"
