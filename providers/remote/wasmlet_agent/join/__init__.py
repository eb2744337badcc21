"""The side of an agent that dials out: `joining` makes it known to a host, `links` keeps connections to it."""

from __future__ import annotations
