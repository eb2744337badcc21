"""From the API server to the nodes: their addresses, and logs, exec, attach and port-forward, passed on to them."""
