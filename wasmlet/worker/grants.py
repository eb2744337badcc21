"""The grant of a container: its addresses, the ports at which it may listen, and whom it may dial.

The node loop makes the grant from the manifest and its own settings. The operation `run` carries it to the shim, and
the broker enforces it. Everything that is not in the grant is refused. `wire` describes its form as a message.
"""

from __future__ import annotations

import functools
import ipaddress
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from . import wire

TCP, UDP = "TCP", "UDP"

MAX_PORTS = 64
"""The most ports of one container. It holds a descriptor for each from its start on."""
MAX_RULES = 256
MAX_NAME = 253
"""Characters of a DNS name (RFC 1035)."""
MAX_SERVERS, MAX_SEARCHES = 3, 32
MAX_HOSTS = 256
_MOST_KEPT = 1024
"""How many normalized addresses and networks are cached: normalizing is the slowest part of reading a grant."""


class Port(NamedTuple):
    """A port at which the container may listen.

    Attributes:
        number: 1 to 65535.
        name: its name in the manifest; "" for none.
        protocol: `TCP` or `UDP`.
        hosts: addresses and ports of the node (`hostPort`) that the broker binds for this port, too; for TCP only.
    """

    number: int
    name: str = ""
    protocol: str = TCP
    hosts: tuple[tuple[str, int], ...] = ()


class Rule(NamedTuple):
    """A destination that the container may dial. Exactly one of `name` and `cidr` is not "".

    Attributes:
        name: a DNS name in lower case, without a dot at its end; `*.example.org` for all names below that, `*` for all
            names and all addresses.
        cidr: a network, for addresses that the guest gives directly, not by a name.
        first, last: the range of ports, both included.
    """

    name: str = ""
    cidr: str = ""
    first: int = 1
    last: int = 65535


class Resolver(NamedTuple):
    """How the pod resolves names: what its resolv.conf and hosts file say.

    Attributes:
        servers: addresses of DNS servers, in the order in which they are asked.
        searches: domains that are appended to a name with fewer dots than `ndots`.
        timeout: seconds that one server is waited for.
        attempts: how often all servers are asked.
        hosts: the addresses from the hosts file, by the name in lower case; no server is asked for these names.
        chosen: whether the pod's author influences what names resolve to (servers, search domains, hosts). Rules with
            names in a ceiling then do not count: the author could make such a name lead anywhere.
    """

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    ndots: int = 1
    timeout: float = 5.0
    attempts: int = 2
    hosts: Mapping[str, tuple[str, ...]] = {}
    chosen: bool = False


class Grant(NamedTuple):
    """Everything that one container may do on the network.

    Attributes:
        namespace: path of the pod's network namespace; "" where it has none, and is known by its addresses alone.
        addresses: of the pod, at least one. Without a namespace its sockets are bound to them.
        ports: in the order of the manifest.
        egress: the rules for what the pod may dial. Every destination needs a rule, with one exception: a pod with a
            namespace may always dial itself (its addresses, its loopback, and names of these in its hosts file). In
            a pod without one, 127.0.0.1 and ::1 mean the pod's address, and dialling it needs a rule.
        ceiling: the most that the node's owner allows; None for no ceiling. A destination must match both.
        never: networks that nobody may dial, whatever the rules say.
        never_at: addresses and ports that nobody may dial (the node's own API), at every address of the node.
        resolver: how the pod resolves names.
    """

    namespace: str = ""
    addresses: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    egress: tuple[Rule, ...] = ()
    ceiling: tuple[Rule, ...] | None = None
    never: tuple[str, ...] = ()
    never_at: tuple[tuple[str, int], ...] = ()
    resolver: Resolver = Resolver()

    def as_message(self) -> wire.Message:
        """The grant as a JSON object."""
        return {
            **self._asdict(),
            "ports": [port._asdict() for port in self.ports],
            "egress": [rule._asdict() for rule in self.egress],
            "ceiling": None if self.ceiling is None else [rule._asdict() for rule in self.ceiling],
            "resolver": {**self.resolver._asdict(), "hosts": dict(self.resolver.hosts)},
        }

    @classmethod
    def of(cls, message: object) -> Grant:
        """From a message.

        Raises:
            wire.WireError: it is not of that form.
        """
        try:
            if not isinstance(message, Mapping):
                raise TypeError("no object")
            return cls(
                namespace=_path(message.get("namespace") or ""),
                addresses=tuple(_address(one) for one in _listed(message["addresses"], 4)),
                ports=tuple(_port(one) for one in _listed(message.get("ports"), MAX_PORTS)),
                egress=tuple(_rule(one) for one in _listed(message.get("egress"), MAX_RULES)),
                ceiling=_ceiling(message.get("ceiling")),
                never=tuple(_network(one) for one in _listed(message.get("never"), MAX_RULES)),
                never_at=places_of(message.get("never_at")),
                resolver=_resolver(message.get("resolver") or {}),
            )
        except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise wire.WireError(f"expected a grant of network, found {str(message)[:80]!r}: {error}") from None


def places_of(value: Any) -> tuple[tuple[str, int], ...]:
    """Addresses and ports.

    Raises:
        ValueError, TypeError, IndexError: they are none.
    """
    return tuple((_address(one[0]), _number(one[1])) for one in _listed(value, 64))


def _ceiling(value: Any) -> tuple[Rule, ...] | None:
    return None if value is None else tuple(_rule(one) for one in _listed(value, MAX_RULES))


def _listed(value: Any, most: int) -> list[Any]:
    found = value if value is not None else []
    if not isinstance(found, (list, tuple)) or len(found) > most:
        raise ValueError(f"expected a list of at most {most}")
    return list(found)


def _path(value: Any) -> str:
    if not isinstance(value, str) or (value and not os.path.isabs(value)):
        raise ValueError("expected an absolute path")
    return value


@functools.lru_cache(maxsize=_MOST_KEPT)
def _address(value: Any) -> str:
    return str(ipaddress.ip_address(str(value)))


@functools.lru_cache(maxsize=_MOST_KEPT)
def _network(value: Any) -> str:
    return str(ipaddress.ip_network(str(value)))


def _number(value: Any) -> int:
    if type(value) is not int or not 0 < value < 65536:
        raise ValueError(f"expected a port from 1 to 65535, found {value!r}")
    return int(value)


def _port(value: Any) -> Port:
    protocol = value.get("protocol") or TCP
    if protocol not in (TCP, UDP):
        raise ValueError(f"expected protocol {TCP} or {UDP}, found {protocol!r}")
    hosts = tuple((_address(one[0]), _number(one[1])) for one in _listed(value.get("hosts"), 8))
    return Port(_number(value["number"]), str(value.get("name") or "")[:MAX_NAME], protocol, hosts)


def _rule(value: Any) -> Rule:
    name, cidr = str(value.get("name") or ""), str(value.get("cidr") or "")
    if bool(name) == bool(cidr) or len(name) > MAX_NAME:
        raise ValueError("expected a rule with a name or a network")
    return Rule(name, _network(cidr) if cidr else "", _number(value["first"]), _number(value["last"]))


def _resolver(value: Any) -> Resolver:
    hosts = value.get("hosts") or {}
    if len(hosts) > MAX_HOSTS:
        raise ValueError(f"expected at most {MAX_HOSTS} hosts")
    return Resolver(
        servers=tuple(_address(one) for one in _listed(value.get("servers"), MAX_SERVERS)),
        searches=tuple(str(one)[:MAX_NAME] for one in _listed(value.get("searches"), MAX_SEARCHES)),
        ndots=int(value.get("ndots", 1)),
        timeout=float(value.get("timeout", 5.0)),
        attempts=int(value.get("attempts", 2)),
        hosts={str(name): tuple(_address(one) for one in _listed(known, 16)) for name, known in hosts.items()},
        chosen=value.get("chosen") is True,
    )
