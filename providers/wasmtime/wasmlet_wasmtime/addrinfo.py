"""WasmEdge's `sock_getaddrinfo`: looks up the addresses of a name, by asking the broker.

The guest passes a list of `addrinfo` structures in its memory. Each points to a `sockaddr`, and that one to room for
the address. The answers are written there.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from .functions import INVAL
from .sockets import SUCCESS, Failed, Network, of_host

_UNSPECIFIED, _INET4, _INET6 = 0, 1, 2
_PASSIVE, _NUMERIC_HOST = 1, 4
_BAD_FLAGS, _FAIL, _FAMILY, _MEMORY, _NO_NAME, _SERVICE, _AGAIN = 79, 80, 81, 82, 84, 85, 78
"""Error numbers that only this function has."""
_ERRORS = {errno.ENOENT: _NO_NAME, errno.EAGAIN: _AGAIN, errno.ETIMEDOUT: _AGAIN, errno.EIO: _FAIL}
_FLAGS = 0x7F
_INFO = struct.Struct("<HBBBxxxIIIII")
"""Flags, family, kind, protocol, length of the address; pointers to the address and a name; the name's length; and a
pointer to the next structure."""
_SOCKADDR = struct.Struct("<BxxxII")
_PROTOCOLS = {1: 2, 2: 1, 0: 0}
"""From the kind of a socket to its protocol: UDP for datagrams, TCP for streams."""
_LENGTHS = {_INET4: 16, _INET6: 28}
_LONGEST_NAME = 255
_MOST = 64
_SERVICES = {"": 0, "http": 80, "https": 443, "domain": 53, "smtp": 25, "ssh": 22, "ftp": 21, "redis": 6379}


class Hint(NamedTuple):
    flags: int
    family: int
    kind: int
    protocol: int


def sock_getaddrinfo(
    network: Network,
    node: int,
    node_size: int,
    service: int,
    service_size: int,
    hints: int,
    results: int,
    most: int,
    stored: int,
) -> int:
    if node_size > _LONGEST_NAME or service_size > _LONGEST_NAME:
        return _NO_NAME
    name, port_name = _text(network, node, node_size), _text(network, service, service_size)
    hint = Hint(*_INFO.unpack(network.read(hints, _INFO.size))[:4])
    network.check(stored, 4)
    if not name and not port_name:
        return _NO_NAME
    if most < 1:
        return _MEMORY
    if hint.flags & ~_FLAGS:
        return _BAD_FLAGS
    if hint.family not in (_UNSPECIFIED, _INET4, _INET6):
        return _FAMILY
    if hint.kind not in _PROTOCOLS:
        return INVAL
    found = _addresses(network, name, hint)
    network.put(stored, _store(network, network.get(results), found[: min(most, _MOST)], hint, _port(port_name)))
    return SUCCESS


def _text(network: Network, address: int, size: int) -> str:
    return network.read(address, size).split(b"\0")[0].decode("ascii", "replace")


def _port(name: str) -> int:
    if name.isdigit() and int(name) < 65536:
        return int(name)
    if name not in _SERVICES:
        raise Failed(_SERVICE)
    return _SERVICES[name]


def _addresses(network: Network, name: str, hint: Hint) -> list[tuple[int, bytes]]:
    """Families and addresses."""
    if not name:
        found = ["0.0.0.0" if hint.flags & _PASSIVE else "127.0.0.1"]
    elif _packed(name) is not None:
        found = [name]
    elif hint.flags & _NUMERIC_HOST:
        raise Failed(_NO_NAME)
    else:
        answer = network.broker.ask("resolve", name=name)
        if answer.error:
            raise Failed(_ERRORS.get(answer.error, of_host(answer.error)))
        found = [str(address) for address in answer.fields.get("addresses") or ()]
    packed = [one for one in map(_packed, found) if one is not None]
    kept = [one for one in packed if hint.family in (_UNSPECIFIED, one[0])]
    if not kept:
        raise Failed(_NO_NAME)
    return kept


def _packed(address: str) -> tuple[int, bytes] | None:
    for family, host_family in ((_INET4, socket.AF_INET), (_INET6, socket.AF_INET6)):
        try:
            return family, socket.inet_pton(host_family, address)
        except (OSError, ValueError):
            continue
    return None


def _store(network: Network, place: int, found: list[tuple[int, bytes]], hint: Hint, port: int) -> int:
    """Fill the guest's list, as far as there is room. Returns how many addresses were stored."""
    stored = 0
    for family, address in found:
        *_, where, name, _, following = _INFO.unpack(network.read(place, _INFO.size))
        _, room, data = _SOCKADDR.unpack(network.read(where, _SOCKADDR.size))
        content = struct.pack(">H", port) + (address + bytes(8) if family == _INET4 else bytes(4) + address + bytes(4))
        if len(content) > room:
            continue  # no room for an address of this family
        network.write(data, content)
        network.write(where, _SOCKADDR.pack(family, len(content), data))
        kind = hint.kind
        info = _INFO.pack(0, family, kind, _PROTOCOLS[kind], _LENGTHS[family], where, name, 0, following)
        network.write(place, info)
        stored += 1
        if stored < len(found):
            place = following
    return stored
