"""The modules of containers: where they come from, how they are pulled, and how they are compiled."""
