"""The authority of the control plane, the signer of requests, and kubeconfigs."""
