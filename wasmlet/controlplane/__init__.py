"""The embedded control plane: an API server in memory that real kubectl can use, with a scheduler and controllers.

`ControlPlane` (exported by `wasmlet.testing`) puts the packages together, from the bottom to the top:

- `storage`: the table of kinds, objects, and the history that watches read;
- `patches`: JSON patch, merge patch, strategic merge patch and server-side apply;
- `access`: who asks, and what they may do;
- `objects`: the rules of each kind, from a write to the store;
- `extensions`: custom resources, by what their definitions say;
- `certificates`: the certificate authority, and the signer of CertificateSigningRequests;
- `kubelets`: logs, exec, attach, port-forward and metrics, passed on to the nodes;
- `controllers`: what kube-controller-manager does, from silent nodes and taints to Deployments and Jobs;
- `http`: the API that clients see;
- `scheduler`, which gives pods a node;
- `faults` and `lag`: errors that tests put between clients and the API.
"""
