"""The operator: each `WasmNodePool` object describes a group of nodes, and the operator creates and removes them.

It ends a node only after the pods have left it, or after the pool's drain timeout. The schema of a `WasmNodePool` is in
charts/wasmlet-operator/crds. kopf, a framework for operators, starts one task for each pool. The task (`keeper`) reads
the state from the API server, decides (`plan`), and does the next step. The operator keeps no state of its own that the
API server does not have. So it can stop at any step and be started again, and two operators that run at once reach the
same result. docs/operator.md is for users.
"""
