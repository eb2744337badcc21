"""Makes directories from outside the pod (hostPath volumes, claims) look as if they belonged to the pod's own user.

A pod's processes run as a user of their own (`pod_users`), but the files on the disk belong to root, or to the user in
`runAsUser`. An idmapped mount (Linux 5.12; for ext4, xfs and btrfs; since 6.3 for tmpfs) translates between the two:
the pod's process owns the files of that user, and what it makes there belongs to that user on the disk. A pod in a
user namespace gets the same (KEP-127).

The mount is not attached to any path. It exists only as a descriptor, and is gone when the last copy of that is
closed. All functions block.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys

from wasmlet.model.pod import Container, Pod
from wasmlet.runtime.files.pod_users import User
from wasmlet.runtime.shim.records import worker_environment

_OPEN_TREE, _MOUNT_SETATTR = 428, 442
"""The numbers of the calls, the same on every machine."""
_CLONE, _EMPTY_PATH, _RECURSIVE = 1, 0x1000, 0x8000
_IDMAP = 0x00100000
_ATTRIBUTES = struct.Struct("QQQQ")

_libc = ctypes.CDLL(None, use_errno=True)

# To make a user namespace, a process must be started in it. That process ends when its stdin is closed.
_HOLDER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
failed = libc.unshare(0x10000000)
os.write(1, b"%d" % (ctypes.get_errno() if failed else 0))
sys.stdin.read()
"""

_ALL = 2**32 - 1
"""How many user ids there are; 2^32 - 1 itself is not a valid id."""


def owners(pod: Pod, container: Container) -> tuple[int, int]:
    """The owner and group on disk for files that the container makes: its runAsUser and runAsGroup, or root."""

    def asked(field: str) -> int:
        contexts = (container.raw.get("securityContext") or {}, pod.spec.get("securityContext") or {})
        return next((int(found[field]) for found in contexts if found.get(field) is not None), 0)

    return asked("runAsUser"), asked("runAsGroup")


def namespace(disk: tuple[int, int], user: User) -> int:
    """Make a user namespace that maps these owners on disk to the pod's user. The caller closes its descriptor.

    Raises:
        OSError: the kernel refuses.
    """
    command, pipe = [sys.executable, "-I", "-S", "-c", _HOLDER], subprocess.PIPE
    holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=worker_environment())
    with holder:
        assert holder.stdout is not None
        try:
            number = int(os.read(holder.stdout.fileno(), 8) or b"5")
            if number:
                raise OSError(number, os.strerror(number))
            for name, owner in zip(("uid_map", "gid_map"), disk, strict=True):
                with open(f"/proc/{holder.pid}/{name}", "w", encoding="ascii") as file:
                    file.write(exchanged(owner, user.id))
            return os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            holder.kill()


def exchanged(one: int, other: int) -> str:
    """An id map (user_namespaces(7)) that exchanges two ids and maps every other id to itself.

    All ids must be in the map: no process can write files whose owner is not mapped, not even as a group member.
    """
    low, high = sorted((one, other))
    pieces = [(0, 0, low), (low, high, 1), (low + 1, low + 1, high - low - 1), (high, low, 1)]
    pieces.append((high + 1, high + 1, _ALL - high - 1))
    if low == high:
        pieces = [(0, 0, _ALL)]
    return "".join(f"{inside} {outside} {size}\n" for inside, outside, size in pieces if size)


def mapped(directory: int, namespace: int) -> int:
    """Make an idmapped mount of a directory, with the map of a user namespace. The caller closes its descriptor.

    Raises:
        OSError: the kernel or the file system cannot do that.
    """
    tree = _call(
        _OPEN_TREE, ctypes.c_int(directory), b"", ctypes.c_uint(_CLONE | os.O_CLOEXEC | _EMPTY_PATH | _RECURSIVE)
    )
    try:
        attributes = _ATTRIBUTES.pack(_IDMAP, 0, 0, namespace)
        size = ctypes.c_size_t(_ATTRIBUTES.size)
        _call(_MOUNT_SETATTR, ctypes.c_int(tree), b"", ctypes.c_uint(_EMPTY_PATH | _RECURSIVE), attributes, size)
    except OSError:
        os.close(tree)
        raise
    return tree


def _call(number: int, *arguments: object) -> int:
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(result)
