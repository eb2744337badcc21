"""Whom a container may dial: its rules, the ceiling of the node's owner, and what nobody dials.

A dial has to fit a rule of the grant and, where there is a ceiling, a rule of that. Names fit rules with names; so an
address fits that such a name has just had. An address that a guest gives as such fits networks and `*`, and it fits as
the address of a name that it was told for that (`remember`). Names of a ceiling count only where the pod's author has
no part in where names lead (`Resolver.chosen`), and then for what is really looked up: with a domain of the cluster's
services behind it, a name leads to a Service, which may be that author's.

What is never dialled is looked at last, for the address that is really dialled. A name server that gives another
answer each time, or an address of the node itself, gains nothing.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ..grants import Grant, Rule

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ALL = "*"
REMEMBERED = 256
"""Addresses that a container was told and may dial as such: the last ones."""
_NAMES_OF_ADDRESS = 8

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SERVICES = "svc"
"""The label below which the cluster's DNS has the names of Services."""
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


class Name(NamedTuple):
    """A name that is looked up: as it was asked for, and with the domain that was appended, if any."""

    asked: str
    full: str


def address_of(text: str) -> Address | None:
    """The address that a text is; None where it is a name."""
    try:
        found: Address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None:
            return None
        return found.ipv4_mapped or found
    return found


class NodeApi:
    """Where the node's own API is, which nobody dials.

    Args:
        at: addresses and ports.
    """

    def __init__(self, at: Iterable[tuple[str, int]] = ()) -> None:
        self.moved_to(at)

    def moved_to(self, at: Iterable[tuple[str, int]]) -> None:
        """It is there from now on."""
        self._at = {(address_of(text), port) for text, port in at}
        # A node has more addresses than it tells, and what listens there listens at all of them.
        self._ports = {port for _, port in self._at}

    def has(self, address: Address, port: int | None, is_nodes: Callable[[str], bool]) -> bool:
        """Whether it is there. `is_nodes`: whether an address is one of the node's own."""
        return (address, port) in self._at or (port in self._ports and is_nodes(str(address)))


class Egress:
    """What one container may dial.

    Args:
        is_nodes: whether an address is one of the node's own.
        node_api: where the node's API is now; that of the grant is where it was when the container started.
    """

    def __init__(self, grant: Grant, is_nodes: Callable[[str], bool], node_api: NodeApi) -> None:
        self._is_nodes = is_nodes
        self._node_apis = (NodeApi(grant.never_at), node_api)
        self._chosen = grant.resolver.chosen
        self._has_namespace = bool(grant.namespace)
        self._own = [address for address in map(address_of, grant.addresses) if address is not None]
        searches = grant.resolver.searches
        self._rules = _Rules(grant.egress, searches)
        self._ceiling = None if grant.ceiling is None else _Rules(grant.ceiling, searches, as_looked_up=True)
        self._never = [ipaddress.ip_network(text) for text in grant.never]
        self._remembered: OrderedDict[Address, tuple[Name, ...]] = OrderedDict()

    def meant(self, address: Address) -> Address:
        """What a container means by an address: without a namespace its 127.0.0.1 and ::1 are the pod's address."""
        if not self._has_namespace and str(address) in ("127.0.0.1", "::1"):
            for own in self._own:
                if own.version == address.version:
                    return own
        return address

    def leads_home(self, address: Address) -> bool:
        """Whether it leads into the pod itself and nowhere else: in its own namespace. Nobody has to grant that."""
        return self._has_namespace and (address.is_loopback or address in self._own)

    def grants_name(self, name: Name, port: int | None = None) -> bool:
        """Whether this name may be looked up, for a dial to this port or (None) to any."""
        if not self._rules.has_name(name, port):
            return False
        ceiling = self._ceiling
        # Networks of a ceiling are looked at when the addresses are known.
        return ceiling is None or self._ceiling_has_name(name, port) or ceiling.has_networks(port)

    def grants_address_of(self, name: Name, address: Address, port: int | None = None) -> bool:
        """Whether this address may be dialled because it is that of this name."""
        if not self._rules.has_name(name, port):
            return False
        ceiling = self._ceiling
        return ceiling is None or self._ceiling_has_name(name, port) or ceiling.has_address(address, port)

    def _ceiling_has_name(self, name: Name, port: int | None) -> bool:
        if self._ceiling is None or self._chosen:
            return False
        return self._ceiling.has_name(name, port)

    def grants_address(self, address: Address, port: int) -> bool:
        """Whether this address may be dialled as such."""
        if self.leads_home(address):
            return True
        if any(self.grants_address_of(name, address, port) for name in self._remembered.get(address, ())):
            return True
        ceiling = self._ceiling
        return self._rules.has_address(address, port) and (ceiling is None or ceiling.has_address(address, port))

    def remember(self, name: Name, addresses: Iterable[Address]) -> None:
        """The container was told that the name has these."""
        for address in addresses:
            names = self._remembered.pop(address, ())
            self._remembered[address] = (name, *(known for known in names if known != name))[:_NAMES_OF_ADDRESS]
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)

    def never(self, address: Address, port: int | None = None) -> bool:
        """Whether nobody dials this address (at this port), whatever was granted."""
        if self.leads_home(address):
            return False
        return any(self._never_as_such(one, port) for one in (address, *_inside(address)))

    def _never_as_such(self, address: Address, port: int | None) -> bool:
        if any(api.has(address, port, self._is_nodes) for api in self._node_apis):
            return True
        if address in self._own:
            return False
        if address.is_link_local or address.is_unspecified or address.is_multicast or address == _BROADCAST:
            return True
        return any(address in network for network in self._never)


class _Rules:
    """The rules of a grant, or of a ceiling; by their names, since a guest may ask for many that are not granted.

    Args:
        as_looked_up: names count for what is looked up, and not for what was asked for; a domain of the cluster's
            services behind the name of a rule makes it another name.
    """

    def __init__(self, rules: Sequence[Rule], searches: Sequence[str], *, as_looked_up: bool = False) -> None:
        self._as_looked_up = as_looked_up
        self._everything: list[Rule] = []
        self._names: dict[str, list[Rule]] = {}
        self._below: dict[str, list[Rule]] = {}
        """By the end of the names that fit: `.example.org`."""
        for rule in rules:
            if rule.name == ALL:
                self._everything.append(rule)
            elif rule.name.startswith("*."):
                self._below.setdefault(rule.name[1:], []).append(rule)
            elif rule.name:
                self._names.setdefault(rule.name, []).append(rule)
        domains = [search.lower().removesuffix(".") for search in searches]
        self._searches = [f".{one}" for one in domains if not (as_looked_up and _SERVICES in one.split("."))]
        self._networks: list[tuple[_Network, Rule]] = [
            (ipaddress.ip_network(rule.cidr), rule) for rule in rules if rule.cidr
        ]

    def has_name(self, name: Name, port: int | None) -> bool:
        return any(_at(rule, port) for rule in self._of(name))

    def _of(self, name: Name) -> Iterator[Rule]:
        """The rules whose name is this one: as it was asked for, or looked up, or as the rule's own is looked up."""
        yield from self._everything
        for one in (name.full,) if self._as_looked_up else name:
            yield from self._names.get(one, ())
            for place, letter in enumerate(one):
                if letter == ".":
                    yield from self._below.get(one[place:], ())
        for search in self._searches:
            if name.full.endswith(search):
                yield from self._names.get(name.full[: -len(search)], ())

    def has_networks(self, port: int | None) -> bool:
        """Whether there is anything that fits addresses as such."""
        return any(_at(rule, port) for rule in self._everything) or any(_at(rule, port) for _, rule in self._networks)

    def has_address(self, address: Address, port: int | None) -> bool:
        if any(_at(rule, port) for rule in self._everything):
            return True
        return any(_at(rule, port) and address in network for network, rule in self._networks)


def _at(rule: Rule, port: int | None) -> bool:
    return port is None or rule.first <= port <= rule.last


def _inside(address: Address) -> tuple[Address, ...]:
    """Addresses that this one may lead to: those of IPv4 in one of IPv6."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found = [address.ipv4_mapped, address.sixtofour]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return tuple(one for one in found if one is not None)
