"""The way from the API server to the nodes: which there are, logs, exec, attach and port-forward."""
