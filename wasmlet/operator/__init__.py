"""The operator: one object makes a fleet of nodes, and none of them ends before its pods have left it.

A `WasmNodePool` (charts/wasmlet-operator/crds) says what nodes there are to be. kopf starts a task for each pool, which
looks at what the API server has, decides (`plan`), and does the next step; nothing is remembered that the API server
does not have, so the operator can end at any step, and two of them do the same. docs/operator.md is for users.
"""
