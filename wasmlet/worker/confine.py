"""What a process that runs guests may still do, in the order that works: this is for when an engine is led astray.

1. `begin`, which needs no spec: no_new_privs, limits.
2. `files`: landlock (`landlock`), the container's mounts and its compiled module and nothing else.
3. The pod's own user (`linux.become`), where the node may give it one.
4. `finish`: of root's powers only that to reach its own mounts' files stays, and seccomp (`seccomp`).

Each part is on where the kernel has it; `report` says which are, and why one is not. One that is on and fails is an
error: nothing runs with less than was reported.

A dense worker does 1, `network` and 4 at its start. Landlock cannot keep its guests to their files: it holds for a
thread and what it starts, and an engine's own threads, begun by one guest, work for all.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import struct
from collections.abc import Iterable, Sequence

from . import landlock, linux, seccomp

OPEN_FILES = 8192
"""The most descriptors of a container's process; each open file of a guest is one."""

_NETWORK_ABI = 4
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITIES_VERSION = 0x20080522
_KEPT_CAPABILITIES = 1 << 1 | 1 << 3
"""CAP_DAC_OVERRIDE and CAP_FOWNER: files of a mount may be anybody's. Landlock says which files those can be."""


class Confinement:
    """Made once in the zygote; its children use it."""

    def __init__(self) -> None:
        self._landlock = landlock.abi()
        self._seccomp = None if _without_seccomp() else seccomp.Program()

    def begin(self, open_files: int = OPEN_FILES) -> None:
        """Do what needs no spec."""
        linux.no_new_privileges()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = min(open_files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        for limit in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
            resource.setrlimit(limit, (0, 0))

    def files(self, module: int, mounts: Iterable[tuple[int, bool]], needs: Sequence[str] = ()) -> None:
        """Leave the calling thread these files only.

        Args:
            module: descriptor of the compiled module, to be read.
            mounts: descriptors of directories, and whether they are to be read only.
            needs: what the engine is not safe without (`REQUIRES` of its in-worker module).

        Raises:
            ValueError: the engine needs a part that this machine does not have.
        """
        if "landlock" in needs and not self._landlock:
            raise ValueError(
                f"this engine does not keep guests to their mounts; it needs landlock for that: {_without_landlock()}"
            )
        if self._landlock:
            allowed = [(mount, landlock.READ if read_only else landlock.WRITE) for mount, read_only in mounts]
            landlock.restrict([(module, landlock.READ), *allowed], self._landlock)

    def network(self) -> None:
        """Leave the calling thread no TCP, nor signals and abstract sockets to other processes; files stay."""
        if self._landlock >= _NETWORK_ABI:
            landlock.restrict(None, self._landlock)

    def finish(self) -> None:
        """Drop the rest, for good: from here on there is only the guest."""
        if os.geteuid() == 0:
            _drop_capabilities()
        if self._seccomp is not None:
            self._seccomp.install()

    def compiler(self, readable: Iterable[str]) -> None:
        """The same for a process that compiles a module: it writes to what it has open, and reads these paths."""
        self.begin()
        if self._landlock:
            opened = []
            for path in readable:
                with contextlib.suppress(OSError):
                    opened.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
            landlock.restrict([(descriptor, landlock.READ) for descriptor in opened], self._landlock)
            for descriptor in opened:
                os.close(descriptor)
        self.finish()


def report() -> dict[str, str]:
    """Part by part `on`, with what there is to say of it, or `off: ` and why."""
    abi = landlock.abi()
    return {
        "no_new_privs": "on",
        "seccomp": f"off: {why}" if (why := _without_seccomp()) else "on",
        "landlock": f"on (ABI {abi})" if abi else f"off: {_without_landlock()}",
    }


def _without_seccomp() -> str:
    """Why there is no seccomp here; "" where there is."""
    if not seccomp.available():
        return "the kernel has no seccomp filters"
    try:
        seccomp.Program()
    except OSError as error:
        return str(error.strerror)
    return ""


def _without_landlock() -> str:
    return f"the kernel ({platform.release()}) has no landlock, or is not told to use it (lsm=)"


def _drop_capabilities() -> None:
    header = struct.pack("=Ii", _CAPABILITIES_VERSION, 0)
    low = struct.pack("=III", _KEPT_CAPABILITIES, _KEPT_CAPABILITIES, 0)
    number = _CAPSET.get(os.uname().machine)
    if number is not None:
        linux.syscall(number, header, low + bytes(12))
