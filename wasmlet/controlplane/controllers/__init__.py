"""What runs by itself: nodes that fall silent are tainted, and their pods evicted."""
