"""The files that guests see: volumes, mounts, what is staged for a container, and whose they are."""
