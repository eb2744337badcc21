"""A `wasmlet` command as a process of the demo's. It ends with the demo, even where the demo is killed."""

from __future__ import annotations

import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections.abc import Mapping
from typing import IO, Any

from wasmlet.cli import main
from wasmlet.worker import linux


async def start(arguments: list[str], log: IO[Any], variables: Mapping[str, str] | None = None) -> Process:
    """Start `wasmlet` with these arguments.

    Call it from the main thread: the process would end with any other thread.

    Args:
        log: where its output goes.
        variables: its environment; None is that of the demo.

    Raises:
        OSError: it cannot be started.
    """
    return await create_subprocess_exec(
        sys.executable, "-m", "wasmlet.cli.demo.child", str(os.getpid()), *arguments,
        env=variables, stdin=DEVNULL, stdout=log, stderr=log,
        start_new_session=True,  # Ctrl-C is for the demo, which ends the pods first
    )  # fmt: skip


def _run(demo: int, arguments: list[str]) -> None:
    linux.die_with_parent(signal.SIGTERM)  # a node ends its pods then
    if os.getppid() != demo:  # the demo has already ended
        return
    main(arguments)


if __name__ == "__main__":
    _run(int(sys.argv[1]), sys.argv[2:])
