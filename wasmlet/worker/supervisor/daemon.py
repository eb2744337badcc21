"""Starts a shim: in the background, with its state directory locked, and with nothing inherited from its starter."""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import sys

from .. import linux, wire
from ..log import log_problem
from ..loop import Loop
from .records import StateError, lock_state_dir
from .shim import Shim


def main(arguments: list[str]) -> int:
    """Start a shim in the background; return when it listens.

    Exit status 1 and a message on standard error where it cannot.
    """
    parser = argparse.ArgumentParser(prog="shim")
    parser.add_argument("--state-dir", required=True)
    parser.add_argument("--idle-exit", type=float, default=60.0)
    parser.add_argument("--no-cgroups", action="store_true")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    # Some event loops pass descriptors on to the processes that they start, and the shim outlives the owners of the
    # other ends.
    linux.close_from(3)
    try:
        lock, rebooted = lock_state_dir(os.path.abspath(options.state_dir))
    except StateError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    reader, writer = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(writer)
        with open(reader, "rb") as answers:
            answer = answers.read().decode()
        if answer != "ready":
            sys.stderr.write(answer or "the shim died while it started\n")
            return 1
        os._exit(0)
    try:
        _serve(options.idle_exit, rebooted, not options.no_cgroups, writer)
    except BaseException as error:
        message = f"the shim failed: {type(error).__name__}: {error}"
        log_problem(message)
        wire_error = message + "\n"
        with contextlib.suppress(OSError):
            os.write(writer, wire_error.encode())
        os._exit(1)
    os.close(lock)
    os._exit(0)


def _serve(idle_exit: float, rebooted: bool, cgroups: bool, writer: int) -> None:
    os.setsid()
    linux.set_name("wasmlet-shim")
    linux.become_subreaper()
    linux.no_new_privileges()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open("shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    for source, number in ((null, 0), (null, 1), (log, 2)):
        os.dup2(source, number)
    wire.close((null, log))
    loop = Loop()
    Shim(loop, idle_exit, rebooted, cgroups)
    os.write(writer, b"ready")
    os.close(writer)
    loop.run()
