"""Assigns addresses of a network, each to one pod at a time."""

from __future__ import annotations

import hashlib
import ipaddress
import random
from pathlib import Path

from wasmlet.runtime.network.config import Cidr
from wasmlet.runtime.network.network import NetworkError

_BLOCKS = 254
"""The networks 127.1.0.0/16 to 127.254.0.0/16. The machine itself and its resolver use 127.0.0.0/16."""


def loopback_range(state_dir: Path) -> ipaddress.IPv4Network:
    """The part of 127.0.0.0/8 that pods of the node with this state directory have addresses of.

    It follows from the directory's path, so that nodes on one machine most likely have one each, and a node that comes
    back has the same.
    """
    digest = hashlib.sha256(str(state_dir.resolve()).encode(errors="surrogateescape")).digest()
    return ipaddress.IPv4Network((f"127.{1 + int.from_bytes(digest[:4], 'big') % _BLOCKS}.0.0", 16))


class Pool:
    """The addresses of one network.

    The first address (of the network), the second (usually the gateway) and the last are never assigned. The others
    are assigned in turn, beginning at a random one, so that it takes long until an address is used again.
    """

    def __init__(self, network: Cidr, rng: random.Random) -> None:
        self.network = network
        self._size = network.num_addresses - 3
        self._next = rng.randrange(self._size)
        self._used: set[int] = set()

    def take(self) -> str:
        """An address that nobody has.

        Raises:
            NetworkError: there is none.
        """
        if len(self._used) >= self._size:
            raise NetworkError(
                f"no address is left for the pod: all {self._size} of {self.network} are taken; "
                "give the node a larger network with --pod-cidr"
            )
        while self._next in self._used:
            self._next = (self._next + 1) % self._size
        self._used.add(self._next)
        return str(self.network[self._next + 2])

    def note(self, address: str) -> None:
        """Somebody has this address; one of another network is passed over."""
        if (number := self._number(address)) is not None:
            self._used.add(number)

    def free(self, address: str) -> None:
        """Nobody has this address any more; one of another network is passed over."""
        if (number := self._number(address)) is not None and number in self._used:
            self._used.discard(number)
            self._next = (number + 1) % self._size if self._next == number else self._next

    def _number(self, address: str) -> int | None:
        found = ipaddress.ip_address(address)
        if found.version != self.network.version or found not in self.network:
            return None
        return int(found) - int(self.network.network_address) - 2
