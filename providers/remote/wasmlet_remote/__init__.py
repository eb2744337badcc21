"""`RemoteProvider`: a provider whose pods run where a `wasmlet-agent` is, driven over HTTP."""

from __future__ import annotations
