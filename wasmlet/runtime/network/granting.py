"""What one container may ask of its pod's network: its ports, whom it may dial, and how it resolves names."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from wasmlet.model.hosts import resolver_words
from wasmlet.model.pod import Container, Pod
from wasmlet.runtime.network import egress
from wasmlet.runtime.network.network import PodNetwork
from wasmlet.runtime.network.node_network import NodeNetwork
from wasmlet.runtime.network.requests import ContainerPort, on_host, ports_of
from wasmlet.worker.grants import MAX_HOSTS, MAX_NAME, MAX_SEARCHES, MAX_SERVERS, TCP, UDP, Grant, Port, Resolver

_MOST_ADDRESSES = 16
"""Of one name in a hosts file."""
_LIMITS = {"ndots": 15, "timeout": 30, "attempts": 5}
"""The most that a resolver takes of these options, as resolv.conf(5) has it."""
_UNNAMED = "unknown"
"""What sd_listen_fds(3) calls a listener without a name."""


@attrs.frozen
class NameFiles:
    """How a pod resolves names: the texts of its files."""

    resolv_conf: str = ""
    hosts: str = ""


def grant_of(
    pod: Pod, container: Container, found: PodNetwork, network: NodeNetwork, names: NameFiles, node_ips: Sequence[str]
) -> Grant:
    """What a container may ask.

    Args:
        found: the network of its pod.
        node_ips: where host ports are that name no address.

    Raises:
        Refused: an annotation of the pod is no grant.
    """
    host = on_host(pod)
    ports = ports_of(container, host=host)
    served = (TCP, UDP) if found.namespace else (TCP,)
    return Grant(
        namespace=found.namespace,
        addresses=found.ips,
        ports=tuple(
            Port(p.number, p.name, p.protocol, () if host or found.mapped else _hosts(p, node_ips))
            for p in ports
            if p.protocol in served
        ),
        egress=egress.of_pod(pod),
        ceiling=network.ceiling,
        never=network.never(found),
        never_at=network.never_at(),
        resolver=resolver_of(names),
    )


def listeners_of(grant: Grant) -> list[Port]:
    """The ports that the container has descriptors of, from 3 on."""
    return [port for port in grant.ports if port.protocol == TCP]


def as_spec(grant: Grant, http: Mapping[str, Any]) -> dict[str, Any]:
    """What the guest's process is told of its network.

    Args:
        http: how it serves HTTP, see `http_serving`.
    """
    listeners = [{"number": port.number, "name": port.name, "protocol": port.protocol} for port in listeners_of(grant)]
    return {"addresses": list(grant.addresses), "listeners": listeners, **({"http": dict(http)} if http else {})}


def listening_variables(grant: Grant) -> dict[str, str]:
    """The variables by which a guest finds its listeners, as sd_listen_fds(3) has them, and its first port."""
    listeners = listeners_of(grant)
    if not listeners:
        return {}
    return {
        "LISTEN_FDS": str(len(listeners)),
        "LISTEN_FDNAMES": ":".join(port.name or _UNNAMED for port in listeners),
        "PORT": str(listeners[0].number),
    }


def _hosts(port: ContainerPort, node_ips: Sequence[str]) -> tuple[tuple[str, int], ...]:
    if not port.host_port:
        return ()
    return tuple((ip, port.host_port) for ip in ((port.host_ip,) if port.host_ip else node_ips))


def resolver_of(names: NameFiles) -> Resolver:
    """How these files have names resolved; what a resolver would not understand in them is passed over."""
    servers, searches, options = resolver_words(names.resolv_conf)
    numbers = dict(_option(word) for word in options)
    return Resolver(
        servers=tuple(filter(None, map(_address, servers)))[:MAX_SERVERS],
        searches=tuple(search[:MAX_NAME] for search in searches[:MAX_SEARCHES]),
        ndots=min(numbers.get("ndots", 1), _LIMITS["ndots"]),
        timeout=float(min(max(numbers.get("timeout", 5), 1), _LIMITS["timeout"])),
        attempts=min(max(numbers.get("attempts", 2), 1), _LIMITS["attempts"]),
        hosts=_hosts_of(names.hosts),
    )


def _option(word: str) -> tuple[str, int]:
    name, _, value = word.partition(":")
    return (name, int(value)) if name in _LIMITS and value.isdecimal() else ("", 0)


def _hosts_of(text: str) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        first, *names = line.partition("#")[0].split() or [""]
        ip = _address(first)
        for name in names if ip else ():
            known = found.get(name.lower(), ())
            if ip not in known and len(known) < _MOST_ADDRESSES and (known or len(found) < MAX_HOSTS):
                found[name.lower()] = (*known, ip)
    return found


@functools.lru_cache(maxsize=1024)
def _address(text: str) -> str:
    """The address in its usual form; "" for what is none, and for one with a zone, which another machine's are."""
    try:
        return "" if "%" in text else str(ipaddress.ip_address(text))
    except ValueError:
        return ""
