"""The socket functions of WasmEdge that preview 1 does not have, and that many crates use.

`hostcalls` calls them, as it does those of `preview1`. A socket that a guest opens has no descriptor of the host until
the broker has bound or connected it. A datagram goes to the address to which the broker has connected the socket. A
datagram socket that the broker has bound to a port may send to any address that it can reach.

Options that a guest sets are stored, so that it can read them again. Only time-outs have an effect.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct

from . import preview1
from .functions import INVAL
from .sockets import DATAGRAM, MFILE, NOTSUP, STREAM, SUCCESS, Failed, Network, Socket, checked, of_host
from .split import LOW

_INET4, _INET6 = 1, 2
_OLD_TYPE = {_INET4: 4, _INET6: 6}
"""The number of an address family in functions of the first version."""
_KINDS = {1: DATAGRAM, 2: STREAM}
_KIND_OF = {DATAGRAM: 1, STREAM: 2}
_PROTOCOLS = {STREAM: "TCP", DATAGRAM: "UDP"}
_STORAGE = 128
"""Bytes of an address in functions of the second version; it begins with its family."""
_SOL_SOCKET = 0
_TYPE, _ERROR, _LINGER, _ACCEPTS, _DEVICE = 1, 2, 9, 13, 14
_TIMEOUTS = {11: select.POLLIN, 12: select.POLLOUT}
_TIMEVAL = struct.Struct("<qq")
_SIZES = {_LINGER: 8, 11: _TIMEVAL.size, 12: _TIMEVAL.size}
_MOST_BYTES = 64
_U16, _PAIR = struct.Struct("<H"), struct.Struct("<II")


def sock_open(network: Network, family: int, kind: int, stored: int) -> int:
    if family not in (_INET4, _INET6) or kind not in _KINDS:
        return INVAL
    network.check(stored, 4)
    if not network.has_room():
        return MFILE
    network.put(stored, network.add(Socket(_KINDS[kind])))
    return SUCCESS


def sock_bind(network: Network, number: int, address: int, port: int) -> int:
    found = network.find(number)
    _address(network, address)
    if found.fds or found.request is not None or not 0 <= port < 65536:
        return INVAL
    if port:  # without one it is as if it were not bound
        found.become(_inherited(network, found.kind, port) or _bound(network, found.kind, port))
        found.port = port
        found.listening = found.kind == DATAGRAM  # which is all there is to do
        network.changes += 1
    return SUCCESS


def _inherited(network: Network, kind: int, port: int) -> list[int]:
    """Descriptors for a port on which the guest has had a listener since its start; empty if there is none."""
    for number, one in network.sockets.items():
        if number < LOW and one.port == port and one.kind == kind:
            return [os.dup(descriptor) for descriptor in one.fds]
    return []


def _bound(network: Network, kind: int, port: int) -> list[int]:
    return list(checked(network.broker.ask("listen", port=port, protocol=_PROTOCOLS[kind])).fds)


def sock_listen(network: Network, number: int, backlog: int) -> int:
    found = network.find(number)
    if found.kind != STREAM:
        return NOTSUP
    if not found.port:
        return INVAL
    found.listen(backlog)
    network.changes += 1
    return SUCCESS


def sock_connect(network: Network, number: int, address: int, port: int) -> int:
    found = network.find(number)
    host = _address(network, address)
    if found.request is not None:
        if found.nonblocking:
            raise OSError(errno.EALREADY, "the broker is asked already")
        preview1.connected(network, found)
        return SUCCESS
    if found.error:
        failed, found.error = found.error, 0
        raise OSError(failed, os.strerror(failed))
    if found.kind == STREAM and found.fds:
        raise OSError(errno.EISCONN, "it is connected")
    if not 0 <= port < 65536:
        return INVAL
    number = _connect(network, found, host, port)
    answer = network.broker.take(number) if found.nonblocking and found.kind == STREAM else network.answer(number)
    if answer is None:
        raise OSError(errno.EINPROGRESS, "the broker is asked")
    found.request = None
    found.become(checked(answer).fds)
    network.settle(found)
    return SUCCESS


def _connect(network: Network, found: Socket, host: str, port: int) -> int:
    found.request = number = network.broker.begin("connect", host=host, port=port, protocol=_PROTOCOLS[found.kind])
    found.peer = (host, port)
    network.changes += 1
    return number


def sock_send_to(
    network: Network, number: int, iovs: int, count: int, address: int, port: int, flags: int, stored: int
) -> int:
    found = network.find(number)
    if found.kind == STREAM:
        return preview1.fd_write(network, number, iovs, count, stored)
    peer = (_address(network, address), port)
    if found.port:
        return _send_from_bound(network, found, (iovs, count, stored), peer)
    if not found.fds or found.peer != peer:
        _connect(network, found, *peer)
        preview1.connected(network, found)
    return preview1.fd_write(network, number, iovs, count, stored)


def _send_from_bound(network: Network, found: Socket, data: tuple[int, int, int], peer: tuple[str, int]) -> int:
    iovs, count, stored = data
    buffers = network.buffers(iovs, count)
    network.check(stored, 4)
    while True:
        try:
            network.put(stored, found.python.sendmsg(buffers, (), 0, peer))
            return SUCCESS
        except BlockingIOError:
            if found.nonblocking or not found.ready(network, select.POLLOUT):
                raise


def sock_recv_from(
    network: Network, number: int, iovs: int, count: int, address: int, flags: int, stored: int, told: int
) -> int:
    """The first version: without the sender's port."""
    return _receive_from(network, number, (iovs, count, flags), address, None, stored, told)


def sock_recv_from_v2(
    network: Network, number: int, iovs: int, count: int, address: int, flags: int, port: int, stored: int, told: int
) -> int:
    network.check(port, 2)
    return _receive_from(network, number, (iovs, count, flags), address, port, stored, told)


def _receive_from(
    network: Network,
    number: int,
    data: tuple[int, int, int],
    address: int,
    port: int | None,
    stored: int,
    told: int,
) -> int:
    found = network.find(number)
    iovs, count, flags = data
    buffers = network.buffers(iovs, count)
    network.check(stored, 4)
    network.check(told, 2)
    network.check(*_PAIR.unpack_from(network.memory, address))
    got, what, sender = preview1.received(network, found, buffers, flags)
    if sender is None and found.kind == STREAM:
        sender = found.python.getpeername()[:2]
    if sender is not None:
        _store_address(network, address, sender[0])
        if port is not None:
            _U16.pack_into(network.memory, port, sender[1])
    network.put(stored, got)
    _U16.pack_into(network.memory, told, 1 if what & socket.MSG_TRUNC else 0)
    return SUCCESS


def sock_getlocaladdr(network: Network, number: int, address: int, kind: int, port: int) -> int:
    return _tell(network, address, (kind, port), _local(network.find(number)))


def sock_getlocaladdr_v2(network: Network, number: int, address: int, port: int) -> int:
    return _tell(network, address, (None, port), _local(network.find(number)))


def sock_getpeeraddr(network: Network, number: int, address: int, kind: int, port: int) -> int:
    return _tell(network, address, (kind, port), _peer(network.find(number)))


def sock_getpeeraddr_v2(network: Network, number: int, address: int, port: int) -> int:
    return _tell(network, address, (None, port), _peer(network.find(number)))


def _local(found: Socket) -> tuple[str, int]:
    if not found.fds:
        return ("0.0.0.0", 0)
    host, port = found.python.getsockname()[:2]
    return host, port


def _peer(found: Socket) -> tuple[str, int]:
    if not found.fds or found.port:
        raise OSError(errno.ENOTCONN, "it is not connected")
    host, port = found.python.getpeername()[:2]
    return host, port


def _tell(network: Network, address: int, places: tuple[int | None, int], said: tuple[str, int]) -> int:
    kind, port = places
    network.check(port, 4)
    family = _store_address(network, address, said[0])
    if kind is not None:
        network.put(kind, _OLD_TYPE[family])
    network.put(port, said[1])
    return SUCCESS


def _address(network: Network, pointer: int) -> str:
    """Read an address from the guest's memory."""
    begin, size = _PAIR.unpack_from(network.memory, pointer)
    data = network.read(begin, size if size in (4, 16, _STORAGE) else 0)
    if size == _STORAGE:
        data = data[2:6] if _U16.unpack_from(data)[0] == _INET4 else data[2:18]
    if not data:
        raise Failed(INVAL)
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)


def _store_address(network: Network, pointer: int, host: str) -> int:
    """Write an address into the guest's memory. Returns its family."""
    begin, size = _PAIR.unpack_from(network.memory, pointer)
    network.check(begin, size)
    family = _INET6 if ":" in host else _INET4
    data = socket.inet_pton(socket.AF_INET6 if family == _INET6 else socket.AF_INET, host.partition("%")[0])
    if size == _STORAGE:
        data = _U16.pack(family) + data
    if len(data) > size:
        raise Failed(INVAL)
    network.write(begin, data)
    return family


def sock_setsockopt(network: Network, number: int, level: int, name: int, value: int, size: int) -> int:
    found = network.find(number)
    if level != _SOL_SOCKET or name > _DEVICE:
        raise OSError(errno.ENOPROTOOPT, "no such option")
    if name in (_TYPE, _ERROR, _ACCEPTS):
        raise OSError(errno.ENOPROTOOPT, "it cannot be set")
    if name == _DEVICE:
        raise OSError(errno.EPERM, "a pod has one device")
    if size > _MOST_BYTES:
        return INVAL
    data = network.read(value, size)
    if name in _TIMEOUTS:
        if size < _TIMEVAL.size:
            return INVAL
        whole, micro = _TIMEVAL.unpack_from(data)
        found.timeouts = (found.timeouts or {}) | {_TIMEOUTS[name]: whole + micro / 1e6}
        if whole + micro <= 0:
            del found.timeouts[_TIMEOUTS[name]]
        network.settle(found)
    found.options = (found.options or {}) | {name: data}
    return SUCCESS


def sock_getsockopt(network: Network, number: int, level: int, name: int, value: int, size: int) -> int:
    found = network.find(number)
    if level != _SOL_SOCKET or name > _DEVICE:
        raise OSError(errno.ENOPROTOOPT, "no such option")
    room = network.get(size)
    network.check(value, room)
    if name == _TYPE:
        data = _KIND_OF.get(found.kind, 0).to_bytes(4, "little")
    elif name == _ERROR:
        data = (of_host(found.error) if found.error else 0).to_bytes(4, "little")
        found.error = 0
    elif name == _ACCEPTS:
        data = int(found.listening and found.kind == STREAM).to_bytes(4, "little")
    else:
        data = (found.options or {}).get(name, bytes(_SIZES.get(name, 4)))
    network.write(value, data[:room])
    network.put(size, min(len(data), room))
    return SUCCESS
