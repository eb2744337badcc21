"""For authors of capabilities: the types to import. See `worker.capability`, where they are defined.

Import this for type checking and in tests only: it loads what an actor's process does not need.
"""

from wasmlet_wascc.worker.capability import GROUP, Capability, Context, HostError, Link, Mount, Silent

__all__ = ["GROUP", "Capability", "Context", "HostError", "Link", "Mount", "Silent"]
