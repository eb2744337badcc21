"""Decides whether a container may connect to an address and a port. The broker asks before it connects for a guest.

Three parties have a say, and all three have to agree:

1. The pod's author, by the grant: the annotation `wasmlet.dev/egress`.
2. The node's owner, by the ceiling: the option `--egress-max`. Without it the ceiling allows everything.
3. wasmlet itself: nobody connects to link-local addresses, the node's loopback or the node's own API (`never`).

Grant and ceiling are lists of rules (`_Rules`). A rule is for a name, such as `*.example.org`, or for a network, such
as `10.0.0.0/8`. A guest that gives a name has it looked up, and a rule for the name allows the addresses in the answer.
A guest that gives an address needs a rule for a network that has it, or must have been told the address for an allowed
name before (`remember`): many programs look a name up first and connect to the address later.

A name in the ceiling would be of no use if the pod's author could decide where the name leads. So names in the ceiling
do not count for pods that bring name servers, search domains or hosts of their own (`Resolver.chosen`). And they are
compared with the full name that is looked up, search domain included: `db` with the search domain
`default.svc.cluster.local` is a Service, which may be the author's.

`never` is asked last, for the address that is connected to. So a DNS server that gives other answers the second time
does not help a guest, and neither does an address of the node.
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
"""How many addresses are remembered that a container was told in lookups, and may dial directly: the last ones."""
_NAMES_OF_ADDRESS = 8

_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
"""Networks whose last 32 bits are an IPv4 address, to which a router translates them (RFC 6052, RFC 8215)."""
_SERVICES = "svc"
"""The DNS label for Services: their names end in `.svc.<cluster domain>`."""
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


class Name(NamedTuple):
    """A name to look up: as the guest asked for it, and in full, with the search domain that was appended, if any."""

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
        """Set where the node's API is from now on."""
        self._at = {(address_of(text), port) for text, port in at}
        # The API listens at all of the node's addresses, and these are more than the node reports.
        self._ports = {port for _, port in self._at}

    def has(self, address: Address, port: int | None, is_nodes: Callable[[str], bool]) -> bool:
        """Whether the node's API is at this address and port. `is_nodes`: whether an address is the node's own."""
        return (address, port) in self._at or (port in self._ports and is_nodes(str(address)))


class Egress:
    """What one container may dial: the answers to the broker's questions.

    For a name, the broker asks `grants_name` before the lookup and `grants_address_of` for each address in the answer.
    For an address that the guest gives, it asks `grants_address`. In the end it asks `never`.

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
        """The address that is really meant: in a pod without a namespace, 127.0.0.1 and ::1 mean the pod's address."""
        if not self._has_namespace and str(address) in ("127.0.0.1", "::1"):
            for own in self._own:
                if own.version == address.version:
                    return own
        return address

    def leads_home(self, address: Address) -> bool:
        """Whether the address is the pod itself, in its own namespace. Dialling it needs no grant."""
        return self._has_namespace and (address.is_loopback or address in self._own)

    def grants_name(self, name: Name, port: int | None = None) -> bool:
        """Whether this name may be looked up, to dial this port; None: any port."""
        if not self._rules.has_name(name, port):
            return False
        ceiling = self._ceiling
        # Networks in the ceiling are compared later, when the addresses are known.
        return ceiling is None or self._ceiling_has_name(name, port) or ceiling.has_networks(port)

    def grants_address_of(self, name: Name, address: Address, port: int | None = None) -> bool:
        """Whether this address may be dialled as an address of this name."""
        if not self._rules.has_name(name, port):
            return False
        ceiling = self._ceiling
        return ceiling is None or self._ceiling_has_name(name, port) or ceiling.has_address(address, port)

    def _ceiling_has_name(self, name: Name, port: int | None) -> bool:
        if self._ceiling is None or self._chosen:
            return False
        return self._ceiling.has_name(name, port)

    def grants_address(self, address: Address, port: int) -> bool:
        """Whether this address may be dialled when the guest gives it directly."""
        if self.leads_home(address):
            return True
        if any(self.grants_address_of(name, address, port) for name in self._remembered.get(address, ())):
            return True
        ceiling = self._ceiling
        return self._rules.has_address(address, port) and (ceiling is None or ceiling.has_address(address, port))

    def remember(self, name: Name, addresses: Iterable[Address]) -> None:
        """Remember that the container was told these addresses for the name."""
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
    """The rules of a grant or a ceiling, indexed by name, so that many lookups of names that are not granted are cheap.

    Args:
        searches: the search domains of the resolver. A rule also matches with one of these after its name.
        as_looked_up: for a ceiling: compare the full name that is looked up, not the one that was asked for. Search
            domains of the cluster's services are then not appended to the names of rules.
    """

    def __init__(self, rules: Sequence[Rule], searches: Sequence[str], *, as_looked_up: bool = False) -> None:
        self._as_looked_up = as_looked_up
        self._everything: list[Rule] = []
        self._names: dict[str, list[Rule]] = {}
        self._below: dict[str, list[Rule]] = {}
        """Rules like `*.example.org`, by the end of the names that match: `.example.org`."""
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
        """The rules that match a name."""
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
        """Whether any rule for this port matches addresses that are given directly."""
        return any(_at(rule, port) for rule in self._everything) or any(_at(rule, port) for _, rule in self._networks)

    def has_address(self, address: Address, port: int | None) -> bool:
        if any(_at(rule, port) for rule in self._everything):
            return True
        return any(_at(rule, port) and address in network for network, rule in self._networks)


def _at(rule: Rule, port: int | None) -> bool:
    return port is None or rule.first <= port <= rule.last


def _inside(address: Address) -> tuple[Address, ...]:
    """This address, and the IPv4 addresses that are embedded in it if it is an IPv6 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found = [address.ipv4_mapped, address.sixtofour]
    if any(address in network for network in _NAT64):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return tuple(one for one in found if one is not None)
