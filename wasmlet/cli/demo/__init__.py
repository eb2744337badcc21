"""`wasmlet demo`: a control plane, a node and pods in one command.

`manifests` reads what is to be applied, `showing` applies it, `follow` and `serving` tell what becomes of it, `halves`
makes the node's provider.
"""
