"""Records Events for the control plane's own parts: the scheduler and the controllers."""

from __future__ import annotations

from typing import Literal

from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.status import ApiError
from wasmlet.controlplane.storage.store import Record
from wasmlet.model.event_names import EventNames
from wasmlet.model.times import rfc3339_micro


class Recorder:
    """Records the Events of one part of the control plane.

    Args:
        component: the part's name, as in `reportingComponent`.
    """

    def __init__(self, registry: Registry, component: str) -> None:
        self._registry = registry
        self._component = component
        self._names = EventNames()

    def tell(
        self, about: Record, kind: Literal["Normal", "Warning"], reason: str, message: str, action: str = ""
    ) -> None:
        """Make an event about an object, in its namespace or in `default`."""
        now = self._registry.clock.now()
        meta = about.raw["metadata"]
        body = {
            "metadata": {"name": self._names.next(about.name, now)},
            "involvedObject": {
                "kind": about.raw["kind"],
                "apiVersion": about.raw["apiVersion"],
                **({"namespace": about.namespace} if about.namespace else {}),
                "name": about.name,
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
            },
            "type": kind,
            "reason": reason,
            "action": action or reason,
            "message": message,
            "eventTime": rfc3339_micro(now),
            "firstTimestamp": None,
            "lastTimestamp": None,
            "source": {},
            "reportingComponent": self._component,
            "reportingInstance": f"{self._component}-wasmlet",
        }
        try:
            self._registry.create(Call(core("events"), about.namespace or "default"), body)
        except ApiError:
            return  # the namespace is being deleted, so the event cannot be created
