"""Becomes a container's process: `python launcher.py FILE DESCRIPTOR`.

FILE has what the container is, as JSON (`container.ContainerRun` writes it). DESCRIPTOR is of a pipe: its end says that
the program was started, and what is written there why it was not.

A file of its own that needs the standard library alone. It is run as root, makes namespaces (mounts, processes, host
name, IPC), puts the container's root together, becomes the container's user without any capability, and then its
program. The process that was started first waits, ends as the program ended, and takes it along when it is killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000  # mounts, host name, IPC, processes
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC, REMOUNT = 1, 2, 4, 8, 32
BIND, RECURSIVE, PRIVATE = 4096, 16384, 1 << 18
DETACH = 2
DIE_WITH_PARENT, DROP_FROM_BOUNDS, NO_NEW_PRIVILEGES = 1, 24, 38
CANNOT_START = 128
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
OLD = "/.old"
MEANT_FOR_PROGRAM = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""Signals that the program gets, too, being of this process's group."""

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
libc.mount.argtypes = (*[ctypes.c_char_p] * 3, ctypes.c_ulong, ctypes.c_char_p)


def checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    words = [word.encode() for word in (source, target, kind)]
    checked(libc.mount(*words, flags, data.encode()), f"mount {source} at {target}")


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Show a file or directory of the machine at a path that is made if need be."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, target, flags=BIND | RECURSIVE)
    if read_only:
        mount("", target, flags=BIND | REMOUNT | READ_ONLY | NO_SUID)


def enter(root: str, place: str, mounts: list[dict[str, Any]], *, read_only: bool) -> None:
    """Make what is at `root` this process's root, with the mounts in it; without one, an empty directory.

    Args:
        place: an empty directory for what is put together.
    """
    mount("", "/", flags=RECURSIVE | PRIVATE)
    mount("tmpfs", place, "tmpfs", data="mode=755")
    new = f"{place}/root"
    for name in ("root", "upper", "work"):
        os.mkdir(f"{place}/{name}")
    if root:
        layers = f"lowerdir={root},upperdir={place}/upper,workdir={place}/work"
        mount("overlay", new, "overlay", data=layers)
    else:
        mount(new, new, flags=BIND)
    os.makedirs(new + OLD)
    checked(libc.pivot_root(new.encode(), (new + OLD).encode()), "pivot_root")
    os.chdir("/")
    os.makedirs("/proc", exist_ok=True)
    mount("proc", "/proc", "proc", NO_SUID | NO_DEVICES | NO_EXEC)
    bind(OLD + "/sys", "/sys", read_only=True)
    devices()
    os.makedirs("/tmp", exist_ok=True)
    os.chmod("/tmp", 0o1777)
    for one in sorted(mounts, key=lambda one: str(one["target"]).count("/")):
        if "link" in one:
            os.symlink(one["link"], one["target"])
        else:
            bind(OLD + one["source"], one["target"], read_only=one["read_only"])
    checked(libc.umount2(OLD.encode(), DETACH), "umount")
    os.rmdir(OLD)
    if read_only:
        mount("", "/", flags=BIND | REMOUNT | READ_ONLY)


def devices() -> None:
    """/dev as every container has it; 64 MiB of memory at /dev/shm."""
    os.makedirs("/dev", exist_ok=True)
    mount("tmpfs", "/dev", "tmpfs", NO_SUID, "mode=755,size=64k")
    for name in DEVICES:
        bind(f"{OLD}/dev/{name}", f"/dev/{name}")
    for path, kind, data in (
        ("/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620"),
        ("/dev/shm", "tmpfs", "mode=1777,size=64m"),
    ):
        os.mkdir(path)
        mount(kind, path, kind, NO_SUID | (NO_DEVICES if kind == "tmpfs" else 0), data)
    os.symlink("pts/ptmx", "/dev/ptmx")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"/dev/{name}")


def become(user: int, group: int, groups: list[int], *, gain: bool) -> None:
    """Be that user for good, without capabilities, unless a program with more may be started (`gain`)."""
    for number in capabilities():
        checked(libc.prctl(DROP_FROM_BOUNDS, number, 0, 0, 0), "prctl")
    os.setgroups(groups)
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    if not gain:
        checked(libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0), "prctl")
    checked(libc.prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0), "prctl")


def capabilities() -> Iterator[int]:
    with open("/proc/sys/kernel/cap_last_cap") as file:
        yield from range(int(file.read()) + 1)


def run(bundle: dict[str, Any]) -> None:
    """Become the container's program; the first process of its namespaces."""
    os.umask(0o022)
    socket.sethostname(bundle["hostname"])
    enter(bundle["root"], bundle["place"], bundle["mounts"], read_only=bundle["read_only"])
    become(bundle["user"], bundle["group"], bundle["groups"], gain=bundle["gain"])
    os.chdir(bundle["directory"])
    os.execvpe(bundle["words"][0], bundle["words"], bundle["variables"])


def main(path: str, started: int) -> None:
    with open(path) as file:
        bundle = json.load(file)
    os.unlink(path)
    for number in MEANT_FOR_PROGRAM:
        signal.signal(number, signal.SIG_IGN)
    checked(libc.unshare(NAMESPACES), "unshare")
    child = os.fork()
    if child == 0:
        for number in MEANT_FOR_PROGRAM:
            signal.signal(number, signal.SIG_DFL)
        os.set_inheritable(started, False)
        try:
            run(bundle)
        except OSError as error:
            os.write(started, f"{bundle['words'][0]}: {error}".encode())
        os._exit(CANNOT_START)
    os.close(started)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if -code in MEANT_FOR_PROGRAM:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
