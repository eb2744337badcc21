"""The files that guests see: volumes, mounts, single files that are staged for a container, and their owners."""
