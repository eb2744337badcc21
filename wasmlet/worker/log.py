"""The log of the shim and of the processes that it starts: their standard error, which is `shim.log`."""

from __future__ import annotations

import contextlib
import os
import time


def log_problem(text: str) -> None:
    """Write a line to the log."""
    with contextlib.suppress(OSError):
        os.write(2, f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n".encode())
