"""From the API server to kubelets: their addresses; logs, exec, attach, port-forward and metrics are passed on."""
