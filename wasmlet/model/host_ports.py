"""Ports of a node that pods ask for (`hostPort`), and which of them get in each other's way.

The rules are those of the scheduler's plugin NodePorts, which a kubelet asks at admission, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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


def conflict(wanted: Iterable[HostPort], taken: Iterable[HostPort]) -> bool:
    """Whether one of the wanted ports is in the way of one that is taken."""
    known = tuple(taken)
    return any(one.conflicts(other) for one in wanted for other in known)
