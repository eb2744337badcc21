"""What is answered in place of what was asked."""

from __future__ import annotations


class HostError(ValueError):
    """What the host answers an actor in place of what it asked for: words that its code sees."""


class Silent(HostError):
    """Nothing has come from a connection for a while, or nothing was taken by its other side."""


class Ended(HostError):
    """The other side of a connection has closed it."""


class GuestError(Exception):
    """What an actor answers in place of a response: its words."""
