"""The node's HTTPS API: what `kubectl logs` and the API server reach a node through, as they reach a kubelet.

Modules are imported one by one: an agent uses those that know no API server.
"""
