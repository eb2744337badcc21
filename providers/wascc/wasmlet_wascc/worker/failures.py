"""Errors that host and actor answer to each other."""

from __future__ import annotations


class HostError(ValueError):
    """The host cannot do what the actor has asked for. The actor's code gets the text."""


class Silent(HostError):
    """The other side of a connection has sent nothing, or taken nothing, for too long."""


class Ended(HostError):
    """The other side of a connection has closed it."""


class GuestError(Exception):
    """The actor answers with an error instead of a response; this is its text."""
