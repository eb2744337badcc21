"""Makes the grant of a container: its ports, the destinations that it may dial, and how it resolves names.

The broker enforces the grant (`wasmlet.worker.grants`).
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from wasmlet.model.hosts import resolver_words
from wasmlet.model.pod import Pod
from wasmlet.runtime.network import egress
from wasmlet.runtime.network.network import PodNetwork
from wasmlet.runtime.network.node_network import NodeNetwork
from wasmlet.runtime.network.requests import ContainerPort, on_host
from wasmlet.worker.grants import MAX_HOSTS, MAX_NAME, MAX_SEARCHES, MAX_SERVERS, TCP, UDP, Grant, Port, Resolver, Rule

_MOST_ADDRESSES = 16
"""Of one name in a hosts file."""
_LIMITS = {"ndots": 15, "timeout": 30, "attempts": 5}
"""The most that a resolver takes of these options, as resolv.conf(5) has it."""
_DNS_PORT = 53
_UNNAMED = "unknown"
"""What sd_listen_fds(3) calls a listener without a name."""


@attrs.frozen
class NameFiles:
    """How a pod resolves names: the texts of its files."""

    resolv_conf: str = ""
    hosts: str = ""


def grant_of(
    pod: Pod,
    ports: Sequence[ContainerPort],
    found: PodNetwork,
    network: NodeNetwork,
    names: NameFiles,
    node_ips: Sequence[str],
) -> Grant:
    """What a container may ask.

    Args:
        ports: that the container has.
        found: the network of its pod.
        node_ips: where host ports are that name no address.

    Raises:
        Refused: an annotation of the pod is no grant.
    """
    host = on_host(pod)
    served = (TCP, UDP) if found.namespace else (TCP,)
    rules, never = egress.of_pod(pod), network.never(found)
    return Grant(
        namespace=found.namespace,
        addresses=found.ips,
        ports=tuple(
            Port(p.number, p.name, p.protocol, () if host or found.mapped or p.protocol != TCP else _hosts(p, node_ips))
            for p in ports
            if p.protocol in served
        ),
        egress=rules,
        ceiling=network.ceiling,
        never=never,
        never_at=network.never_at(),
        resolver=_for_pod(pod, resolver_of(names), _Allowed(rules, network.ceiling, never)),
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


@attrs.frozen
class _Allowed:
    """Whom a pod may ask for names beside the servers of the node and of the cluster."""

    egress: Sequence[Rule]
    ceiling: Sequence[Rule] | None
    never: Sequence[str]

    def server(self, ip: str) -> bool:
        """Whether a DNS server at this address may be asked: it is dialled like anybody else."""
        address = ipaddress.ip_address(ip)
        if address.is_link_local or any(address in ipaddress.ip_network(one) for one in self.never):
            return False
        return _fits(address, self.egress) and (self.ceiling is None or _fits(address, self.ceiling))


def _fits(address: ipaddress.IPv4Address | ipaddress.IPv6Address, rules: Sequence[Rule]) -> bool:
    return any(
        rule.first <= _DNS_PORT <= rule.last
        and (rule.name == "*" or (rule.cidr != "" and address in ipaddress.ip_network(rule.cidr)))
        for rule in rules
    )


def _for_pod(pod: Pod, resolver: Resolver, allowed: _Allowed) -> Resolver:
    """Without the servers that the pod's author chose and that were not granted."""
    config = pod.spec.get("dnsConfig") or {}
    own = {_address(str(server)) for server in config.get("nameservers") or ()}
    chosen = bool(own or config.get("searches") or pod.spec.get("hostAliases"))
    servers = tuple(ip for ip in resolver.servers if ip not in own or allowed.server(ip))
    return resolver._replace(servers=servers, chosen=chosen)


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
