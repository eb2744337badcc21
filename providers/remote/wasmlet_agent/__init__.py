"""The agent: serves any installed `Provider` over HTTP, so that a node loop elsewhere can drive it.

`protocol` is what both sides speak; `wasmlet_remote` has the other side. Nothing here imports a Kubernetes client.
"""

from __future__ import annotations
