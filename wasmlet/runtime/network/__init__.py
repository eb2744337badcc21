"""The network of pods: addresses, namespaces, and what a pod may ask of them."""
