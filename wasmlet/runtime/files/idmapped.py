"""Directories that come from outside (hostPath volumes, claims), as a pod's own user is to see them.

A pod runs as a user of its own (`pod_users`), and what lies on a disk belongs to root or to whom `runAsUser` names. An
idmapped mount (Linux 5.12; ext4, xfs, btrfs, since 6.3 tmpfs) maps one to the other: the pod's process owns the files
of that user, and what it makes there belongs to that user on the disk. That is what a pod in a user namespace
gets (KEP-127). The mount is attached nowhere: it is a descriptor, and is gone when the last one is closed. Everything
blocks.
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

# A user namespace needs a process to be made in; it ends when its stdin does.
_HOLDER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
failed = libc.unshare(0x10000000)
os.write(1, b"%d" % (ctypes.get_errno() if failed else 0))
sys.stdin.read()
"""

_ALL = 2**32 - 1
"""How many ids there are; the number 2^32 - 1 is not one."""


def owners(pod: Pod, container: Container) -> tuple[int, int]:
    """The user and the group that own on disk what the container makes: its runAsUser and runAsGroup, else root."""

    def asked(field: str) -> int:
        contexts = (container.raw.get("securityContext") or {}, pod.spec.get("securityContext") or {})
        return next((int(found[field]) for found in contexts if found.get(field) is not None), 0)

    return asked("runAsUser"), asked("runAsGroup")


def namespace(disk: tuple[int, int], user: User) -> int:
    """A user namespace in which these owners on disk are the pod's user; a descriptor, the caller's to close.

    Raises:
        OSError: there can be none.
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
    """A map of ids (user_namespaces(7)) in which two are exchanged and each other one is itself.

    No process could write files of an id that is in no map, not even through their group.
    """
    low, high = sorted((one, other))
    pieces = [(0, 0, low), (low, high, 1), (low + 1, low + 1, high - low - 1), (high, low, 1)]
    pieces.append((high + 1, high + 1, _ALL - high - 1))
    if low == high:
        pieces = [(0, 0, _ALL)]
    return "".join(f"{inside} {outside} {size}\n" for inside, outside, size in pieces if size)


def mapped(directory: int, namespace: int) -> int:
    """The directory through a mount of its own in which owners are mapped so; a descriptor, the caller's to close.

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
