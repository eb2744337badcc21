"""What a process that runs guests may still do, in the order that works: this is for when an engine is led astray.

Made in the zygote (`Confinement`), which has no_new_privs and limits that all its children inherit. A child then

1. has a ruleset of landlock ready before it knows what it becomes (`prepare`), and in `confine_guest`, just before its
   guest,
2. is bound to it (`landlock`): its container's mounts and its compiled module, and nothing else by any path,
3. becomes the pod's own user, where the node has given it one, and the kernel will count that user's processes,
4. gives up root's powers but for those over its mounts' files, and is bound to a list of system calls (`seccomp`).

Each part is on where a process that tries it succeeds (`missing`); `report` says which are, and why one is not. One
that is on and fails in a child is an error: nothing runs with less than was reported.

A dense worker (`confine_worker`) does 2 and 4. Landlock binds a thread and what it starts, an engine's own threads work
for the guests of all, and a worker's mounts come one after another, while a ruleset is never widened: so a worker is
left the directories in which the mounts of all its containers will lie. For a process with directories that are known,
and a user, and no spec, `confine_guest` is all there is to call.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import linux
from . import landlock, seccomp

PARTS = ("no_new_privs", "landlock", "seccomp")

OPEN_FILES = 8192
"""The most descriptors of a container's process; each open file of a guest is one."""

TASKS = 512
"""The most threads and processes of a pod's own user."""

_CAPABILITIES = {"x86_64": (125, 126), "aarch64": (90, 91)}
"""Numbers of capget and capset."""
_CAPABILITIES_VERSION = 0x20080522
_KEPT_CAPABILITIES = 1 << 1 | 1 << 3
"""CAP_DAC_OVERRIDE and CAP_FOWNER: files of a mount may be anybody's. Landlock says which files those can be."""
_SOME_BYTES = 4096


class Confinement:
    """Made once in the zygote, and for the process that compiles; what it sets for itself its children inherit."""

    def __init__(self) -> None:
        linux.no_new_privileges()
        for limit in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
            resource.setrlimit(limit, (0, 0))
        self._missing = missing()
        self._landlock = 0 if self._missing["landlock"] else landlock.abi()
        off = bool(self._missing["seccomp"])
        self._seccomp = None if off else seccomp.Program(seccomp.guest_calls())
        self._seccomp_datagrams = None if off else seccomp.Program(seccomp.guest_calls(datagrams=True))
        self._ruleset = -1

    def prepare(self) -> None:
        """In a child: get ready what needs no spec."""
        if self._landlock:
            self._ruleset = landlock.create(self._landlock)

    def confine_guest(
        self,
        module: int,
        mounts: Iterable[tuple[int, bool]],
        user: Mapping[str, Any] | None = None,
        needs: Sequence[str] = (),
        *,
        datagrams: bool = False,
    ) -> None:
        """Leave this process, which has one thread, what one container needs. For good.

        Args:
            module: descriptor of the compiled module, to be read.
            mounts: descriptors of directories, and whether they are to be read only.
            user: who it becomes (`uid`, `gid`, `groups`).
            needs: what the engine is not safe without (`REQUIRES` of its in-worker module).
            datagrams: it may have sockets that are bound and not connected, and send from them to any address.

        Raises:
            ValueError: the engine needs a part that this machine does not have.
            OSError: the kernel refuses.
        """
        for part in needs:
            if why := self._missing.get(part, "no such part is known"):
                raise ValueError(f"this engine is not safe without {part}, which is off: {why}")
        self._limit(resource.RLIMIT_NOFILE, OPEN_FILES)
        if self._landlock:
            self._allow(module, landlock.READ)
            for mount, read_only in mounts:
                self._allow(mount, landlock.READ if read_only else landlock.WRITE)
            self._bind()
        if user is not None:
            self._limit(resource.RLIMIT_NPROC, TASKS)
            linux.become(user["uid"], user["gid"], user["groups"])
            # The kernel drops this when a process becomes another user.
            linux.die_with_parent(signal.SIGKILL)
        self._drop_and_filter(datagrams)

    def confine_worker(self, directories: Iterable[tuple[int, bool]]) -> None:
        """Leave this process, which has one thread, what a dense worker needs.

        Args:
            directories: descriptors, and whether they are to be read only.
        """
        if self._landlock:
            for directory, read_only in directories:
                self._allow(directory, landlock.READ if read_only else landlock.WRITE)
            self._bind()
        self._drop_and_filter()

    def confine_compiler(self, readable: Iterable[str]) -> None:
        """Leave this process what compiling takes: what it has open already, and to read these paths."""
        self._limit(resource.RLIMIT_NOFILE, OPEN_FILES)
        self.prepare()
        if self._landlock:
            for path in readable:
                with contextlib.suppress(FileNotFoundError):
                    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
                    self._allow(descriptor, landlock.READ)
                    os.close(descriptor)
            self._bind()
        self._drop_and_filter()

    def warm_up(self) -> None:
        """In the zygote: do what children do, as far as it binds nobody (see `spare.warm_up`)."""
        self.prepare()
        if self._landlock:
            self._allow(0, landlock.READ)
            os.close(self._ruleset)
            self._ruleset = -1
        if self._seccomp is not None:
            self._seccomp.program()

    def _allow(self, descriptor: int, rights: int) -> None:
        landlock.allow(self._ruleset, descriptor, rights, self._landlock)

    def _bind(self) -> None:
        if linux.has_threads():
            raise RuntimeError("the engine has started threads already, which nothing would confine")
        landlock.restrict_self(self._ruleset)
        os.close(self._ruleset)
        self._ruleset = -1

    @staticmethod
    def _limit(which: int, most: int) -> None:
        hard = resource.getrlimit(which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))

    def _drop_and_filter(self, datagrams: bool = False) -> None:
        keep_capabilities(_KEPT_CAPABILITIES if os.geteuid() == 0 else 0)
        program = self._seccomp_datagrams if datagrams else self._seccomp
        if program is not None:
            program.install()


def missing() -> dict[str, str]:
    """Why this machine does not have a part, "" where it does: tried by a process that ends at once.

    This process must have one thread.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _try(writer)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answers:
        lines = answers.read(_SOME_BYTES).decode().splitlines()
    os.waitpid(pid, 0)
    found = dict(line.split(" ", 1) for line in lines)
    return {part: found.get(part, "a process that tried it was ended") for part in PARTS}


def _try(writer: int) -> None:
    def apply_landlock() -> None:
        landlock.restrict_self(landlock.create(landlock.abi()))

    def apply_seccomp() -> None:
        seccomp.Program(seccomp.guest_calls()).install()

    for part, apply in zip(PARTS, (linux.no_new_privileges, apply_landlock, apply_seccomp)):  # noqa: B905 - Python 3.10
        why = ""
        try:
            apply()
        except OSError as error:
            why = _reason(part, error)
        os.write(writer, f"{part} {why}\n".encode())


def _reason(part: str, error: OSError) -> str:
    kernel = f"the kernel ({platform.release()})"
    if part == "landlock" and error.errno == errno.ENOSYS:
        return f"{kernel} has no landlock"
    if part == "landlock" and error.errno == errno.EOPNOTSUPP:
        return f"{kernel} is not told to use landlock; expected it in lsm= of its command line"
    if part == "seccomp" and error.errno == errno.EINVAL:
        return f"{kernel} has no seccomp filters"
    return str(error.strerror)


def report() -> dict[str, str]:
    """Part by part `on`, with what there is to say of it, or `off: ` and why. This process must have one thread."""
    found = {part: f"off: {why}" if why else "on" for part, why in missing().items()}
    if found["landlock"] == "on":
        found["landlock"] = f"on (ABI {landlock.abi()})"
    return found


def keep_capabilities(kept: int) -> None:
    """Give up all capabilities of this process but these, of which it keeps those that it has.

    Raises:
        OSError: the kernel refuses.
    """
    numbers = _CAPABILITIES.get(os.uname().machine)
    if numbers is not None:
        get, put = numbers
        header, found = struct.pack("=Ii", _CAPABILITIES_VERSION, 0), ctypes.create_string_buffer(24)
        linux.syscall(get, header, found)
        kept &= int(struct.unpack("=IIIIII", found)[1])
        linux.syscall(put, header, struct.pack("=IIIIII", kept, kept, 0, 0, 0, 0))


def main(arguments: list[str]) -> int:
    """Write the report to standard output, as JSON."""
    sys.stdout.write(json.dumps(report()) + "\n")
    return 0
