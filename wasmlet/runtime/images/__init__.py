"""Modules: where they come from, what they import, and how they are compiled."""
