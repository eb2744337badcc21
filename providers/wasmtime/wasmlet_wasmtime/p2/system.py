"""wasi:clocks, wasi:random and wasi:cli: the parts of this process that a guest can use."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from .dialing import Broker
from .instances import Exited, Instance, Resource, Trapped, resource
from .pool import Pool
from .streams import DescriptorInput, DescriptorOutput, Pollable
from .world import function

_MOST_RANDOM = 2**20
"""Bytes at once."""
_SECOND = 1_000_000_000


class Process:
    """What the instances in a process share.

    Args:
        spec: see `wasmlet.worker.wire`.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.arguments: Sequence[str] = spec["args"]
        self.variables: Sequence[tuple[str, str]] = [(name, value) for name, value in spec["env"]]
        self.mounts: Sequence[dict[str, Any]] = spec.get("mounts") or ()
        self.broker = Broker(spec.get("sockets"))
        self.pool = Pool()


class At:
    """Is ready at a time of the monotonic clock, in seconds."""

    def __init__(self, until: float) -> None:
        self.until = until

    def polls(self) -> Sequence[tuple[int, int]]:
        return ()

    def ready(self) -> bool:
        return time.monotonic() >= self.until


@resource("terminal-input")
class TerminalInput(Resource):
    """Says that stdin is a terminal."""


@resource("terminal-output")
class TerminalOutput(Resource):
    """Says that stdout or stderr is a terminal."""


@function("wasi:clocks/monotonic-clock.now")
def _now(instance: Instance) -> int:
    return time.monotonic_ns()


@function("wasi:clocks/monotonic-clock.resolution")
def _resolution(instance: Instance) -> int:
    return max(1, int(time.clock_getres(time.CLOCK_MONOTONIC) * _SECOND))


@function("wasi:clocks/monotonic-clock.subscribe-instant")
def _subscribe_instant(instance: Instance, when: int) -> Pollable:
    return Pollable(At(when / _SECOND))


@function("wasi:clocks/monotonic-clock.subscribe-duration")
def _subscribe_duration(instance: Instance, nanoseconds: int) -> Pollable:
    return Pollable(At(time.monotonic() + nanoseconds / _SECOND))


@function("wasi:clocks/wall-clock.now")
def _wall_now(instance: Instance) -> tuple[int, int]:
    return divmod(time.time_ns(), _SECOND)


@function("wasi:clocks/wall-clock.resolution")
def _wall_resolution(instance: Instance) -> tuple[int, int]:
    return divmod(max(1, int(time.clock_getres(time.CLOCK_REALTIME) * _SECOND)), _SECOND)


@function("wasi:clocks/timezone.display")
def _display(instance: Instance, when: tuple[int, int]) -> tuple[int, str, bool]:
    """Always UTC: a container has no time zone. The guest itself may read its variable `TZ`."""
    return 0, "UTC", False


@function("wasi:clocks/timezone.utc-offset")
def _utc_offset(instance: Instance, when: tuple[int, int]) -> int:
    return 0


@function("wasi:random/random.get-random-bytes", "wasi:random/insecure.get-insecure-random-bytes")
def _random_bytes(instance: Instance, size: int) -> bytes:
    if size > _MOST_RANDOM:
        raise Trapped(f"the guest asks for more than {_MOST_RANDOM} random bytes at once")
    return os.urandom(size)


@function("wasi:random/random.get-random-u64", "wasi:random/insecure.get-insecure-random-u64")
def _random_number(instance: Instance) -> int:
    return int.from_bytes(os.urandom(8), "little")


@function("wasi:random/insecure-seed.insecure-seed", "wasi:random/insecure-seed.get-insecure-seed")
def _seed(instance: Instance) -> tuple[int, int]:
    return _random_number(instance), _random_number(instance)


@function("wasi:cli/environment.get-environment")
def _environment(instance: Instance) -> Sequence[tuple[str, str]]:
    return instance.host.variables  # type: ignore[no-any-return]


@function("wasi:cli/environment.get-arguments")
def _arguments(instance: Instance) -> Sequence[str]:
    return instance.host.arguments  # type: ignore[no-any-return]


@function("wasi:cli/environment.initial-cwd")
def _initial_cwd(instance: Instance) -> str | None:
    return None


@function("wasi:cli/exit.exit")
def _exit(instance: Instance, status: tuple[bool, Any]) -> None:
    raise Exited(0 if status[0] else 1)


@function("wasi:cli/exit.exit-with-code")
def _exit_with_code(instance: Instance, code: int) -> None:
    raise Exited(code)


@function("wasi:cli/stdin.get-stdin")
def _stdin(instance: Instance) -> DescriptorInput:
    return DescriptorInput(0)


@function("wasi:cli/stdout.get-stdout")
def _stdout(instance: Instance) -> DescriptorOutput:
    return DescriptorOutput(1)


@function("wasi:cli/stderr.get-stderr")
def _stderr(instance: Instance) -> DescriptorOutput:
    return DescriptorOutput(2)


@function("wasi:cli/terminal-stdin.get-terminal-stdin")
def _terminal_stdin(instance: Instance) -> TerminalInput | None:
    return TerminalInput() if os.isatty(0) else None


@function("wasi:cli/terminal-stdout.get-terminal-stdout")
def _terminal_stdout(instance: Instance) -> TerminalOutput | None:
    return TerminalOutput() if os.isatty(1) else None


@function("wasi:cli/terminal-stderr.get-terminal-stderr")
def _terminal_stderr(instance: Instance) -> TerminalOutput | None:
    return TerminalOutput() if os.isatty(2) else None
