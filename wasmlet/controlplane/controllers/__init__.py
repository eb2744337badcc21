"""Controllers of nodes: nodes that fall silent are tainted, and their pods evicted."""
