"""The controllers of what users deploy: Deployments, ReplicaSets, EndpointSlices, and what goes with its owner."""
