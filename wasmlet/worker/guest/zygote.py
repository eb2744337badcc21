"""The zygote: a process that has loaded an engine, and forks children. Each child becomes one container.

It imports the engine's in-worker module, prepares it once, and arranges its memory so that children share most of it
(`holes`, `immortal`, `gc.freeze`).
After that it only forks. It stays single-threaded, which makes forking safe. It never sees a spec, because the shim
sends that directly to the child; so nothing of one container is in the memory from which the next one is made.

A child must be a child process of the shim, which collects its exit status. So it is forked as a sibling of the zygote
(`siblings`). Where that is refused, the zygote forks twice: the process in between makes as many children as were asked
for at once, and ends. Its orphans go to the nearest subreaper, which is the shim. The child continues in `spare`.

`engines` describes an engine's in-worker module.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib.util
import os
import signal
import socket
import sys
from typing import cast

from .. import linux, wire
from . import holes, immortal, spare
from .confine import Confinement
from .engines import Engine
from .siblings import Siblings

_SHORT = (errno.EAGAIN, errno.ENOMEM)
"""What fork(2) says where there are too many processes, or too little memory."""


def load(path: str) -> Engine:
    """Load the engine's in-worker module from its file. It may use relative imports for modules beside it."""
    beside = [os.path.dirname(path)]
    spec = importlib.util.spec_from_file_location("wasmlet_engine", path, submodule_search_locations=beside)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules["wasmlet_engine"] = module
    spec.loader.exec_module(module)
    return cast(Engine, module)


def main(arguments: list[str]) -> int:
    """Serve the shim's requests on descriptor 0 until the shim closes it."""
    shim = os.getppid()
    linux.die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    linux.set_name("wasmlet-zygote")
    os.dup2(0, spare.CONTROL, inheritable=False)
    channel = socket.socket(fileno=spare.CONTROL)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    os.close(null)
    try:
        engine = load(arguments[0])
        prepared = engine.prepare()
        confinement = Confinement()
    except BaseException as error:
        wire.send(channel, wire.pack({"error": f"the engine cannot be loaded: {type(error).__name__}: {error}"[:1000]}))
        return 1
    wire.send(channel, wire.pack({"ready": True}))
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - nothing buffered may be written by a child
    spare.warm_up(confinement)
    gc.collect()
    holes.fill()
    immortal.make_all_immortal()
    gc.freeze()
    gc.disable()
    children = _Children(spare.Birth(shim, channel, engine, prepared, confinement))
    while True:
        received = wire.receive(channel)
        if received is None:
            return 0
        message, descriptors = received
        if descriptors:
            children.make(_sorted(message, descriptors), awaited=bool(message.get("awaited")))
        wire.close(descriptors)


def _sorted(message: wire.Message, descriptors: list[int]) -> list[list[int]]:
    """For each child: its control descriptor, then the descriptors to join its control group (`cgroups.Place`)."""
    rest = iter(descriptors)
    return [[next(rest) for _ in range(1 + count)] for count in message["cgroup_fds"]]


class _Children:
    """Makes child processes of the shim. Failures are reported on the control descriptors."""

    def __init__(self, birth: spare.Birth) -> None:
        self._birth = birth
        self._siblings: Siblings | None = None
        with contextlib.suppress(OSError):
            self._siblings = Siblings()

    def make(self, wanted: list[list[int]], *, awaited: bool) -> None:
        """Make a child of each list of descriptors; see `_sorted`, and `spare.main` for `awaited`."""
        try:
            while wanted and self._siblings is not None:
                self._make_sibling(self._siblings, wanted[0], awaited)
                del wanted[0]
            if wanted:
                self._make_orphans(wanted, awaited)
        except OSError as error:
            _report(wanted, f"cannot fork: {error.strerror}")

    def _make_sibling(self, siblings: Siblings, descriptors: list[int], awaited: bool) -> None:
        try:
            if siblings.fork() == 0:
                spare.main(self._birth, 0, descriptors, awaited=awaited)
        except OSError as error:
            if error.errno in _SHORT:
                raise
            self._siblings = None  # a filter of system calls refuses it, or something that stands in for the kernel
            self._make_orphans([descriptors], awaited)

    def _make_orphans(self, wanted: list[list[int]], awaited: bool) -> None:
        between = os.fork()
        if between:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(between, 0)
            return
        try:
            parent = os.getpid()
            while wanted:
                if os.fork() == 0:
                    spare.main(self._birth, parent, wanted[0], awaited=awaited)
                del wanted[0]
        except OSError as error:
            _report(wanted, f"cannot fork: {error.strerror}")
        finally:
            os._exit(0)


def _report(wanted: list[list[int]], text: str) -> None:
    for control, *_ in wanted:
        with contextlib.suppress(OSError):
            spare.report_failure(control, text)
