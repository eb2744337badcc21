"""The certificate authority of the control plane, the signer of certificate requests, and kubeconfigs."""
