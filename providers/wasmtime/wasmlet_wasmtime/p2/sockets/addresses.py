"""wasi:sockets: addresses and error codes of the interface, and the lookup of names."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

from ..dialing import Asked
from ..instances import Failed, Instance, Resource, resource
from ..streams import IoError, Pollable, Waitable
from ..world import function

_NAMES = {
    errno.EACCES: "access-denied", errno.EPERM: "access-denied", errno.ENOTSUP: "not-supported",
    errno.EINVAL: "invalid-argument", errno.ENOMEM: "out-of-memory", errno.ETIMEDOUT: "timeout",
    errno.EAGAIN: "would-block", errno.EMFILE: "new-socket-limit", errno.ENFILE: "new-socket-limit",
    errno.EADDRNOTAVAIL: "address-not-bindable", errno.EADDRINUSE: "address-in-use",
    errno.EHOSTUNREACH: "remote-unreachable", errno.ENETUNREACH: "remote-unreachable",
    errno.ECONNREFUSED: "connection-refused", errno.ECONNRESET: "connection-reset", errno.EPIPE: "connection-reset",
    errno.ECONNABORTED: "connection-aborted", errno.EMSGSIZE: "datagram-too-large", errno.ENOENT: "name-unresolvable",
    errno.EHOSTDOWN: "temporary-resolver-failure", errno.EIO: "permanent-resolver-failure",
}  # fmt: skip
Address = tuple[str, tuple[Any, ...]]


def code_of(number: int | None) -> str:
    """The error code of the interface for an errno."""
    return _NAMES.get(number or 0, "unknown")


def text_of(address: Address) -> tuple[str, int]:
    """An address of the interface as a text, and its port."""
    kind, parts = address
    if kind == "ipv4":
        return ".".join(map(str, parts[1])), parts[0]
    return str(ipaddress.IPv6Address(b"".join(part.to_bytes(2, "big") for part in parts[2]))), parts[0]


def family_number(family: str) -> int:
    """The system's address family for `ipv4` or `ipv6`."""
    return socket.AF_INET if family == "ipv4" else socket.AF_INET6


def remote_of(address: Address, family: str) -> tuple[str, int]:
    """As `text_of`, for an address to which a socket of this family can send.

    Raises:
        Failed: it cannot.
    """
    text, port = text_of(address)
    if address[0] != family or not port or ipaddress.ip_address(text).is_unspecified:
        raise Failed("invalid-argument")
    return text, port


def _parts(text: str) -> tuple[str, tuple[int, ...]]:
    """An address as a variant."""
    found = ipaddress.ip_address(text.partition("%")[0])
    if found.version == 4:
        return "ipv4", tuple(found.packed)
    return "ipv6", tuple(int.from_bytes(found.packed[at : at + 2], "big") for at in range(0, 16, 2))


def address_of(name: Sequence[Any]) -> Address:
    """An address as getsockname returns it, in the form of the interface."""
    kind, parts = _parts(str(name[0]))
    return (kind, (name[1], parts)) if kind == "ipv4" else (kind, (name[1], 0, parts, 0))


def ask(instance: Instance, operation: str, **fields: Any) -> Asked:
    """Send a request to the broker.

    Raises:
        Failed: the process has no descriptor left for it.
    """
    try:
        return Asked(instance.host.broker, operation, **fields)
    except OSError as error:
        raise Failed(code_of(error.errno)) from None


@resource("network")
class Network(Resource):
    """The `network` that the interface demands for opening sockets. It decides nothing: the pod's grant does."""


@resource("resolve-address-stream")
class Addresses(Waitable):
    """The addresses of a name."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._found: list[str] | None = None

    def polls(self) -> Sequence[tuple[int, int]]:
        return self._asked.polls()

    def ready(self) -> bool:
        return self._found is not None or self._asked.answer() is not None

    def next(self) -> Any:
        if self._found is None:
            answer = self._asked.answer()
            if answer is None:
                raise Failed("would-block")
            if answer.error:
                raise Failed(code_of(answer.error))
            self._found = [str(one) for one in answer.fields.get("addresses") or ()]
        return _parts(self._found.pop(0)) if self._found else None

    def close(self) -> None:
        self._asked.drop()


@function("wasi:sockets/instance-network.instance-network")
def _network(instance: Instance) -> Network:
    return Network()


@function("wasi:sockets/network.network-error-code")
def _network_error_code(instance: Instance, error: IoError) -> str | None:
    return error.network


@function("wasi:sockets/ip-name-lookup.resolve-addresses")
def _resolve(instance: Instance, network: Network, name: str) -> Addresses:
    try:
        literal = str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        literal = ""
    if not literal and (not name or len(name) > 253 or not name.isascii()):
        raise Failed("invalid-argument")
    return Addresses(ask(instance, "resolve", name=literal or name))


@function("wasi:sockets/ip-name-lookup.[method]resolve-address-stream.resolve-next-address")
def _next_address(instance: Instance, addresses: Addresses) -> Any:
    return addresses.next()


@function("wasi:sockets/ip-name-lookup.[method]resolve-address-stream.subscribe")
def _subscribe_addresses(instance: Instance, addresses: Addresses) -> Pollable:
    return Pollable(addresses)
