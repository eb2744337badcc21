"""The embedded control plane: an API server in memory that real kubectl can use, with a scheduler and node controllers.

`ControlPlane` (exported by `wasmlet.testing`) puts the rooms together: `storage` has objects and their history,
`objects` the rules of each kind, `access` who may do what, `patches` how objects change, `http` how all of this is
asked for, `kubelets` the way to the nodes, `certificates` keys and signers, `controllers` what runs by itself.
"""
