"""Sends an event for each destination, or capability, that a container wanted and was not granted; each only once."""

from __future__ import annotations

from wasmlet.runtime.network.egress import ANNOTATION
from wasmlet.runtime.shim.instances import Say
from wasmlet.runtime.shim.records import ContainerRecord
from wasmlet.worker.packets import CAPABILITY

_INSTANCES = 4
"""The shim keeps the last two of a container."""
MOST_TOLD = 256
"""How many that were told of are remembered: a guest that is started again may make up others each time."""


class Denials:
    """Tells of the refusals of one container's instances.

    When a record is first seen here, its refusals were already told by an earlier node loop. The exceptions are those
    in `unheard`, which came while no node loop ran, and those of an instance that we have just asked for: a guest may
    be refused something before the shim tells that it runs.
    """

    def __init__(self) -> None:
        self._instances: tuple[str, ...] = ()
        self._told: dict[str, None] = {}

    def saw(self, record: ContainerRecord, say: Say, *, ours: bool) -> None:
        """The shim says this of an instance.

        Args:
            say: tells the events.
            ours: an instance was asked for just now, and nothing was heard of it yet.
        """
        new = set(record.refused) - self._told.keys()
        self._told |= dict.fromkeys(new)
        for target in list(self._told)[:-MOST_TOLD]:
            del self._told[target]
        if record.id not in self._instances:
            self._instances = (*self._instances, record.id)[-_INSTANCES:]
            if not ours:
                new &= set(record.unheard)
        for target in sorted(new):
            say("Warning", *_told(target))


def _told(target: str) -> tuple[str, str]:
    """The reason and the message of an event."""
    if target.startswith(CAPABILITY):
        name = target.removeprefix(CAPABILITY)
        return "CapabilityDenied", f"The container has asked its host for {name}, which it is not granted"
    return "EgressDenied", (
        f"The container may not dial {target}: annotation {ANNOTATION} does not grant it within the node's bounds, or "
        "it is never dialled (link-local, metadata of clouds, the node's loopback and its API)"
    )
