"""Ports of a node that pods ask for (`hostPort`), and which of them get in each other's way.

The rules are those of the scheduler's plugin NodePorts, which a kubelet asks at admission, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from wasmlet.model.pod import Raw

CONFLICT = "node(s) didn't have free ports for the requested pod ports"
"""The plugin's words."""
_ALL = "0.0.0.0"


class HostPort(NamedTuple):
    """One port of a node; the address 0.0.0.0 means all of the node's."""

    address: str
    protocol: str
    number: int

    def conflicts(self, other: HostPort) -> bool:
        """Whether one of them is in the other's way."""
        same = (self.protocol, self.number) == (other.protocol, other.number)
        return same and (self.address == other.address or _ALL in (self.address, other.address))


def host_ports(spec: Raw) -> Iterator[HostPort]:
    """The ports of the node that a pod asks for: of its containers and sidecars, which run side by side."""
    sidecars = (one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always")
    host = bool(spec.get("hostNetwork"))
    for container in (*sidecars, *(spec.get("containers") or ())):
        for port in container.get("ports") or ():
            number = port.get("hostPort") or (port.get("containerPort") if host else 0)
            if number:
                yield HostPort(port.get("hostIP") or _ALL, port.get("protocol") or "TCP", int(number))


class TakenPorts:
    """The ports of one node that pods have, by the UID of the pod."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[HostPort, ...]] = {}

    def take(self, uid: str, spec: Raw) -> None:
        """The pod has the ports that it asks for."""
        if ports := tuple(host_ports(spec)):
            self._of[uid] = ports

    def free(self, uid: str) -> None:
        """The pod has none any more."""
        self._of.pop(uid, None)

    def conflict(self, spec: Raw) -> bool:
        """Whether a pod asks for a port that is in the way of one that another pod has."""
        return any(
            wanted.conflicts(taken) for wanted in host_ports(spec) for ports in self._of.values() for taken in ports
        )
