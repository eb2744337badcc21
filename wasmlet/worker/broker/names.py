"""The names that a container may look up: what its pod's hosts file has for them, and which addresses it may dial."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from ..grants import Grant
from . import dns
from .egress import Address, Egress, Name, address_of
from .lookup import Found
from .requests import Refused


class Names:
    """The names of one container, by its grant and by its pod's resolver."""

    def __init__(self, grant: Grant, egress: Egress) -> None:
        self._resolver, self._egress = grant.resolver, egress

    def meant(self, host: str) -> list[Name]:
        """The full names that a host may mean, with search domains; at least one.

        Raises:
            Refused: it is no name.
        """
        names = dns.candidates(host, tuple(self._resolver.searches), self._resolver.ndots)
        if not names:
            raise Refused(errno.ENOENT, f"{host[:100]!r} is no name of a host")
        return names

    def has(self, name: Name, port: int | None) -> bool:
        """Whether the name is granted, at this port or at any; one that leads to the pod itself is."""
        return self._egress.grants_name(name, port) or self._leads_home(name)

    def known(self, names: Iterable[Name]) -> Found | None:
        """What the pod's hosts file has for the first of these names that is there; None where none is."""
        for name in names:
            if addresses := self._in_hosts(name):
                # The hosts file has the name as it was asked for, without a search domain.
                known = Name(name.asked, name.asked) if name.asked in self._resolver.hosts else name
                return Found(known, tuple(addresses))
        return None

    def dialable(self, found: Found, port: int | None) -> list[Address]:
        """The addresses of a name, without those that may not be dialled."""
        assert found.name is not None
        meant = dict.fromkeys(map(self._egress.meant, found.addresses))
        return [
            address
            for address in meant
            if (self._egress.leads_home(address) or self._egress.grants_address_of(found.name, address, port))
            and not self._egress.never(address, port)
        ]

    def _in_hosts(self, name: Name) -> list[Address]:
        hosts = self._resolver.hosts
        texts = next((hosts[text] for text in (name.asked, name.full) if text in hosts), ())
        return [address for address in map(address_of, texts) if address is not None]

    def _leads_home(self, name: Name) -> bool:
        """Whether the pod's hosts file gives this name an address of the pod itself."""
        addresses = self._in_hosts(name)
        return bool(addresses) and all(map(self._egress.leads_home, addresses))
