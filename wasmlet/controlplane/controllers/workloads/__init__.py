"""The controllers of Deployments, ReplicaSets and EndpointSlices, the garbage collector, and what they share."""
