"""Reading containers' logs, as `kubectl logs` asks for them; the shim writes them."""
