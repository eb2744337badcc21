"""Containers' logs, as `kubectl logs` asks for them."""
