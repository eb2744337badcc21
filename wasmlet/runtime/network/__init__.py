"""The network of pods: addresses, network namespaces, and what a pod may do on the network."""
