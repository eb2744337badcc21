"""interLink: `PluginProvider` drives a plugin of interLink, such as one that hands pods to a batch system as jobs."""

from __future__ import annotations

from wasmlet_remote.interlink.config import InterlinkConfig
from wasmlet_remote.interlink.provider import PluginProvider

__all__ = ["InterlinkConfig", "PluginProvider"]
