"""Options of sockets, which a guest reads and sets in the units of the interface.

A guest may set options before the broker has made the socket. They are stored until then, and set afterwards. A
confined process may set these options only (`wasmlet.worker.guest.seccomp`).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ..instances import Failed, Instance
from ..world import function

_SECOND = 1_000_000_000
_LONGEST, _MOST_PROBES = 32767, 127
"""Seconds, and probes that are not answered: the most that the kernel takes (`MAX_TCP_KEEPIDLE`, `MAX_TCP_KEEPCNT`)."""
_MOST_BYTES = 2**30


class Option(NamedTuple):
    """One option.

    Attributes:
        default: what it is before there is a socket, in the interface's units.
        numbers: level and name (as for setsockopt), for IPv4 and for IPv6.
        to_host: from a value of the interface to the kernel's number.
        of_host: from the kernel's number to a value of the interface.
    """

    default: int
    numbers: tuple[tuple[int, int], tuple[int, int]]
    to_host: Callable[[int], int]
    of_host: Callable[[int], int]


def _same(value: int) -> int:
    return value


def _both(level: int, name: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (level, name), (level, name)


def _seconds(nanoseconds: int) -> int:
    return min(max(1, -(-nanoseconds // _SECOND)), _LONGEST)


def _buffer(default: int, name: int) -> Option:
    # The kernel doubles what it is given, and tells that.
    return Option(default, _both(socket.SOL_SOCKET, name), lambda size: min(size, _MOST_BYTES), lambda size: size // 2)


def _time(seconds: int, name: int) -> Option:
    return Option(seconds * _SECOND, _both(socket.IPPROTO_TCP, name), _seconds, lambda value: value * _SECOND)


_HOPS = (socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
_HOP_LIMIT = Option(64, _HOPS, _same, _same)
_BUFFERS = {
    "receive-buffer-size": _buffer(131072, socket.SO_RCVBUF),
    "send-buffer-size": _buffer(131072, socket.SO_SNDBUF),
}
TCP = _BUFFERS | {
    "keep-alive-enabled": Option(0, _both(socket.SOL_SOCKET, socket.SO_KEEPALIVE), int, _same),
    "keep-alive-idle-time": _time(7200, socket.TCP_KEEPIDLE),
    "keep-alive-interval": _time(75, socket.TCP_KEEPINTVL),
    "keep-alive-count": Option(
        9, _both(socket.IPPROTO_TCP, socket.TCP_KEEPCNT), lambda count: min(count, _MOST_PROBES), _same
    ),
    "hop-limit": _HOP_LIMIT,
}
UDP = _BUFFERS | {"unicast-hop-limit": _HOP_LIMIT}
_FLAGS = ("keep-alive-enabled",)


class Options:
    """The options of one socket.

    Args:
        known: `TCP` or `UDP`.
        six: it is of IPv6.
    """

    def __init__(self, known: dict[str, Option], *, six: bool) -> None:
        self._known, self._six = known, six
        self._wanted: dict[str, int] = {}

    def get(self, name: str, sock: socket.socket | None) -> Any:
        """The value of an option, from `sock` if there is one."""
        option = self._known[name]
        value = self._wanted.get(name, option.default)
        if sock is not None:
            with contextlib.suppress(OSError):
                value = option.of_host(sock.getsockopt(*option.numbers[self._six]))
        return bool(value) if name in _FLAGS else value

    def put(self, name: str, value: int, sock: socket.socket | None) -> None:
        """Set the value of an option.

        Raises:
            Failed: the value is not valid.
        """
        if not value and name not in _FLAGS:
            raise Failed("invalid-argument")
        self._wanted[name] = value
        if sock is not None:
            self._set(name, sock)

    def apply(self, sock: socket.socket) -> None:
        """Set on a new socket all options that were stored."""
        for name in self._wanted:
            self._set(name, sock)

    def _set(self, name: str, sock: socket.socket) -> None:
        option = self._known[name]
        # One that the kernel does not take is one that it keeps as it was, as the interface allows.
        with contextlib.suppress(OSError):
            sock.setsockopt(*option.numbers[self._six], option.to_host(self._wanted[name]))


def functions(prefix: str, known: Iterable[str]) -> None:
    """Register the guest's functions that get and set these options.

    They are for resources that have the attributes `options` and `sock`.
    """
    for name in known:
        _functions(prefix, name)


def _functions(prefix: str, name: str) -> None:
    def get(instance: Instance, found: Any) -> Any:
        return found.options.get(name, found.sock)

    def put(instance: Instance, found: Any, value: int) -> None:
        found.options.put(name, value, found.sock)

    function(f"{prefix}{name}")(get)
    function(f"{prefix}set-{name}")(put)
