"""A terminal that a command writes to."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def on_a_terminal(
    *arguments: str | Path,
    environment: Mapping[str, str],
    directory: Path | None = None,
    output: bool = False,
    seconds: float = 100,
) -> str:
    """What `wasmlet` writes to standard error, and to standard output where `output` is so, if that is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "wasmlet", *arguments],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs if output else subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(seconds) == 0, shown
    return shown.decode()
