"""`wasmlet demo`: a control plane, a node and pods in one command.

`command` has the options, and `demo` runs it all. `manifests` reads the objects, `showing` applies them, `follow` and
`serving` print what becomes of them, `halves` makes the node's provider, `engines` chooses its engines, and `hints`
prints what to try next.
"""
