"""The node's HTTPS API: what `kubectl logs` and the API server reach a node through, as they reach a kubelet.

This file imports none of the modules: an agent, which runs pods for a node elsewhere and knows no API server, uses only
some of them.
"""
