"""Makes sockets in the network namespaces of pods: the broker enters one, makes a socket, and leaves it at once.

A socket stays in the namespace in which it was made, so everything else can be done from outside.
"""

from __future__ import annotations

import errno
import os
import socket

from .. import linux

NODE, GONE = -1, -2
"""Used in place of a descriptor: the node's own namespace, and a pod's namespace that no longer exists."""

_IP_BIND_ADDRESS_NO_PORT = 24
_FLAGS = int(socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


class Places:
    """Makes sockets. There is one object per process, which must have one thread."""

    def __init__(self) -> None:
        self._own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def make(self, namespace: int, family: int, kind: int) -> socket.socket:
        """Make a non-blocking socket in the namespace of this descriptor, or of the node (`NODE`).

        Raises:
            OSError: that is not possible.
        """
        kind |= _FLAGS
        if namespace == NODE:
            return socket.socket(family, kind)
        if namespace == GONE:
            raise OSError(errno.ENETDOWN, "the pod's network namespace is gone")
        linux.enter_network(namespace)
        try:
            return socket.socket(family, kind)
        finally:
            try:
                linux.enter_network(self._own)
            except BaseException:
                os._exit(1)  # we cannot go back: no other socket may be made in this namespace

    def bound(self, namespace: int, address: str, port: int, kind: int) -> socket.socket:
        """Make a socket that is bound to a port; a TCP socket does not listen yet.

        Raises:
            OSError: that is not possible.
        """
        family = family_of(address)
        sock = self.make(namespace, family, kind)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.bind((address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def is_nodes(self, address: str) -> bool:
        """Whether this is an address of the node itself, to which others cannot bind anything."""
        try:
            self.bound(NODE, address, 0, socket.SOCK_DGRAM).close()
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
        return True

    def towards(self, namespace: int, address: str, kind: int, sources: tuple[str, ...]) -> socket.socket:
        """Make a socket for connecting to this address. In a pod without a namespace it is bound to one of `sources`.

        Raises:
            OSError: that is not possible.
        """
        sock = self.make(namespace, family_of(address), kind)
        try:
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            source = next((one for one in sources if family_of(one) == sock.family), "")
            # From a loopback address only loopback addresses can be reached.
            if namespace == NODE and source and _is_loopback(source) <= _is_loopback(address):
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((source, 0))
        except BaseException:
            sock.close()
            raise
        return sock


def family_of(address: str) -> int:
    """The address family, by the form of the address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")
