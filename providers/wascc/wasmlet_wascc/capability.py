"""For authors of capabilities: what one is, and what it is given. Import this for typing and in tests alone."""

from wasmlet_wascc.worker.capability import GROUP, Capability, Context, HostError, Link, Mount, Silent

__all__ = ["GROUP", "Capability", "Context", "HostError", "Link", "Mount", "Silent"]
