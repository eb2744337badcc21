"""`NodeNetwork`: properties of a node's network that concern all its pods. `NO_NETWORK` is for a node without one."""

from __future__ import annotations

import functools
import ipaddress
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from wasmlet.model.pod import Raw
from wasmlet.runtime.network.config import Cidr
from wasmlet.runtime.network.network import PodNetwork
from wasmlet.worker.grants import Rule

_MAPPED = "::ffff:0:0/96"
"""IPv4 addresses in IPv6 form. They would bypass rules for IPv4."""
_METADATA = (
    "fd00:ec2::/32",  # AWS; its agent that gives pods their roles is there, too
    "fd20:ce::254/128",  # Google
    "fd00:c1::a9fe:a9fe/128",  # Oracle
    "100.100.100.200/32",  # Alibaba
    "168.63.129.16/32",  # Azure's WireServer
)
"""Services of clouds that give a machine its credentials, and whose addresses are not link-local."""
_NEVER = tuple(
    str(ipaddress.ip_network(text))
    for text in ("0.0.0.0/8", "::/128", "169.254.0.0/16", "fe80::/10", *_METADATA, _MAPPED)
)
_USUAL_API = (("127.0.0.1", 10250),)
"""Its port counts at all of the node's addresses."""
_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
_LOOPBACK6 = "::1/128"


@attrs.frozen
class NodeNetwork:
    """What the network of a node means for all of its pods.

    Attributes:
        on: whether pods have one; else what needs one is refused.
        host: whether pods may have the node's own (`--allow-host-network`).
        namespaces: whether each pod has a network namespace; else a pod is known by its address alone.
        loopback: the part of 127.0.0.0/8 that pods have addresses of, where they have such; "" for none.
        least_port: the lowest port that a pod may listen at; the kernel keeps those below to root.
        ceiling: whom pods may dial at most; None for no such bound.
        node: the Node as the API has it now.
        ranges: the networks of which pods have addresses that are ones of this machine.
    """

    on: bool = False
    host: bool = False
    namespaces: bool = False
    loopback: str = ""
    least_port: int = 1
    ceiling: tuple[Rule, ...] | None = None
    node: Callable[[], Raw] = dict
    ranges: Callable[[], Sequence[Cidr]] = tuple

    def given(self, *, host: bool) -> bool:
        """Whether a pod has a network; `host` says that it asks for the node's own."""
        return self.on or (host and self.host)

    def has_for_pods(self, address: str) -> bool:
        """Whether the address is one that a pod of this node may have."""
        found = ipaddress.ip_address(address)
        return any(found.version == one.version and found in one for one in self.ranges())

    def never(self, found: PodNetwork) -> tuple[str, ...]:
        """The networks that a pod may never dial, whatever it was granted: those that belong to the node alone."""
        if found.namespace:
            return _NEVER  # loopback is the pod's own
        has_loopback = bool(self.loopback) and _is_in(found.ips[0], self.loopback)
        return (*_NEVER, _LOOPBACK6, *_foreign_loopback(self.loopback if has_loopback else ""))

    def never_at(self) -> tuple[tuple[str, int], ...]:
        """Addresses and ports that no pod dials: the node's own API, which trusts some of its callers.

        Where nobody knows yet at which port that is, it is the usual one.
        """
        return self.api_at() or _USUAL_API

    def api_at(self) -> tuple[tuple[str, int], ...]:
        """Where the node's own API is; () as long as nobody knows."""
        status = self.node().get("status") or {}
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
        if not port:
            return ()
        addresses = [one.get("address") for one in status.get("addresses") or () if "IP" in str(one.get("type"))]
        return tuple((str(address), int(port)) for address in addresses)


NO_NETWORK = NodeNetwork()
"""Of a node whose pods have none."""


def least_port() -> int:
    """The lowest port that this process, and so a pod, may listen at; blocks."""
    if os.geteuid() == 0:
        return 1
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text("ascii"))
    except (OSError, ValueError):
        return 1024


@functools.lru_cache(maxsize=8)
def _foreign_loopback(own: str) -> tuple[str, ...]:
    """127.0.0.0/8 but for this network of it."""
    rest = _LOOPBACK.address_exclude(ipaddress.IPv4Network(own)) if own else (_LOOPBACK,)
    return tuple(map(str, rest))


def _is_in(ip: str, network: str) -> bool:
    found = ipaddress.ip_address(ip)
    return found.version == 4 and found in ipaddress.IPv4Network(network)
