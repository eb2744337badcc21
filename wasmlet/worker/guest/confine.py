"""Restricts the processes that run guests, in case a guest takes control of its engine.

A `Confinement` is made in the zygote, which has no_new_privs and resource limits; all children inherit these. A child
then takes these steps:

1. It prepares a landlock ruleset before it knows what it becomes (`prepare`). The other steps follow just before the
   guest begins (`confine_guest`).
2. It restricts itself to the ruleset (`landlock`): it can open its mounts and its compiled module, and nothing else.
3. It becomes the pod's own user, if the node has given it one. The kernel also limits that user's processes.
4. It gives up the privileges of root, except those for the files in its mounts, and restricts itself to a list of
   system calls (`seccomp`).

`missing` tries each part in a process of its own; a part is "on" if that works. `report` says which parts are on, and
why the others are not. If a part that is on fails in a child, that is an error: no guest runs with less than reported.

A dense worker (`confine_worker`) does steps 2 and 4. Its landlock ruleset must hold for all its containers: landlock
restricts the whole process, containers with new mounts come later, and a ruleset can never be extended. So a worker may
open the directories in which the mounts of all its containers will lie.

For a process with known directories and a user, and without a spec, calling `confine_guest` alone is enough.
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
"""The most open descriptors of a container's process; each file that a guest has open takes one."""

TASKS = 512
"""The most threads and processes of a pod's own user."""

_CAPABILITIES = {"x86_64": (125, 126), "aarch64": (90, 91)}
"""Numbers of capget and capset."""
_CAPABILITIES_VERSION = 0x20080522
_KEPT_CAPABILITIES = 1 << 1 | 1 << 3
"""CAP_DAC_OVERRIDE and CAP_FOWNER: files in a mount may belong to anybody. Landlock still limits which files."""
_SOME_BYTES = 4096

# Made once, since a type of array that is made for one call is gone after it.
_machine = os.uname().machine
_sets = (ctypes.c_uint32 * 6)()
"""Capabilities: the effective, permitted and inheritable ones, numbers 0 to 31, then those from 32 on."""
_header = struct.pack("=Ii", _CAPABILITIES_VERSION, 0)


class Confinement:
    """Restricts processes. Made once in the zygote, and in the compiler process; children inherit what this sets."""

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
        """In a child: prepare everything that does not depend on the container."""
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
        """Restrict this process for the rest of its life to what one container needs. It must have one thread.

        Args:
            module: descriptor of the compiled module, which may be read.
            mounts: descriptors of the mounts' directories, each with whether it is read-only.
            user: the user that the process becomes (`uid`, `gid`, `groups`); None: it stays the same.
            needs: the parts without which the engine is not safe (`REQUIRES` of its in-worker module).
            datagrams: allow UDP sockets that are bound and not connected, which can send to any address.

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
            # The kernel forgets this setting when a process becomes another user.
            linux.die_with_parent(signal.SIGKILL)
        self._drop_and_filter(datagrams)

    def confine_worker(self, directories: Iterable[tuple[int, bool]]) -> None:
        """Restrict this process to what a dense worker needs. It must have one thread.

        Args:
            directories: descriptors, each with whether it is read-only.
        """
        if self._landlock:
            for directory, read_only in directories:
                self._allow(directory, landlock.READ if read_only else landlock.WRITE)
            self._bind()
        self._drop_and_filter()

    def confine_compiler(self, readable: Iterable[str]) -> None:
        """Restrict this process to what compiling needs: the files that it has open, and reading these paths."""
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

    def warm_up(self, module: int) -> None:
        """In the zygote, after `prepare`: run the code of children without restricting anything (`spare.warm_up`).

        Args:
            module: descriptor of any file.
        """
        resource.getrlimit(resource.RLIMIT_NOFILE)
        if self._landlock:
            self._allow(module, landlock.READ)
            linux.has_threads()
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
    """For each part, why this machine does not support it; "" if it does. A process that ends at once tries them.

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
    """The state of each part: `on`, perhaps with details, or `off: ` and the reason. For a process of one thread."""
    found = {part: f"off: {why}" if why else "on" for part, why in missing().items()}
    if found["landlock"] == "on":
        found["landlock"] = f"on (ABI {landlock.abi()})"
    return found


def keep_capabilities(kept: int) -> None:
    """Give up all capabilities of this process except those in `kept` that it has.

    Raises:
        OSError: the kernel refuses.
    """
    numbers = _CAPABILITIES.get(_machine)
    if numbers is not None:
        get, put = numbers
        linux.syscall(get, _header, _sets)
        kept &= int(_sets[1])
        _sets[:] = [kept, kept, 0, 0, 0, 0]
        linux.syscall(put, _header, _sets)


def main(arguments: list[str]) -> int:
    """Write the report to standard output, as JSON."""
    sys.stdout.write(json.dumps(report()) + "\n")
    return 0
