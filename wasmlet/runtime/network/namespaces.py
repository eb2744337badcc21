"""Network namespaces of pods: makes them, makes sockets in them, and removes them. A mount keeps each one alive.

Each thread of a process can be in a different namespace. So every operation here starts a thread, which ends
afterwards: a thread that could not return to the node's namespace must not do anything else. All functions block, for
less than 1 ms.
"""

from __future__ import annotations

import _thread
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703
_MS_BIND = 4096
_MNT_DETACH = 2
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
_INTERFACE = struct.Struct("16sH22x")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def make(path: Path) -> None:
    """Make a namespace, with its loopback up, that lasts until `remove`; one that is there already stays.

    Raises:
        OSError: this process may not, or the directory is not there.
    """
    if exists(path):
        return
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o400))

    def work() -> None:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        _set_up("lo")
        own = f"/proc/self/task/{_thread.get_native_id()}/ns/net"
        _check(_libc.mount(own.encode(), str(path).encode(), None, _MS_BIND, None), f"mount {path}")

    try:
        _by_own_thread(work)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def exists(path: Path) -> bool:
    """Whether there is a namespace at this path, and not only the file that is left of one after a reboot."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Let go of a namespace; it ends when nothing is in it any more. One that is not there is no error.

    Raises:
        OSError: it cannot be removed.
    """
    while exists(path):
        _check(_libc.umount2(str(path).encode(), _MNT_DETACH), f"umount {path}")
    path.unlink(missing_ok=True)


def socket_in(namespace: str, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket that belongs to another network namespace.

    Args:
        namespace: its path.

    Raises:
        OSError: it is not there, or may not be entered.
    """

    def work() -> socket.socket:
        descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # setns(2), which Python has from 3.12 on
            _check(_libc.setns(descriptor, _CLONE_NEWNET), "setns")
        finally:
            os.close(descriptor)
        return socket.socket(family, kind)

    return _by_own_thread(work)


def _by_own_thread(work: Callable[[], T]) -> T:
    done: list[T] = []
    failed: list[BaseException] = []
    over = _thread.allocate_lock()
    over.acquire()

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)
        finally:
            over.release()

    # `threading.Thread` would be waited for twice: for its start, and for its end.
    _thread.start_new_thread(run, ())
    over.acquire()
    if failed:
        raise failed[0]
    return done[0]


def _set_up(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        found = fcntl.ioctl(sock, _SIOCGIFFLAGS, _INTERFACE.pack(interface.encode(), 0))
        flags = _INTERFACE.unpack(found)[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, _INTERFACE.pack(interface.encode(), flags | _IFF_UP))


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
