"""One event, two APIs: core/v1 and events.k8s.io/v1 show the same objects under different field names.

The store holds the core form. `registry` converts what clients write, `http.forms` what they read.
"""

from __future__ import annotations

from wasmlet.controlplane.storage.status import Object

_NEWER = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_CORE = {new: old for old, new in _NEWER.items()}


def newer(event: Object) -> Object:
    """A core event as events.k8s.io/v1 has it."""
    return {_NEWER.get(key, key): value for key, value in event.items()} | {"apiVersion": "events.k8s.io/v1"}


def core(event: Object) -> Object:
    """An events.k8s.io/v1 event as core/v1 has it."""
    return {_CORE.get(key, key): value for key, value in event.items()} | {"apiVersion": "v1"}
