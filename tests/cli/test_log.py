"""What the program logs on a terminal: with colours, unless the user or the terminal has none."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

LOGS = "from wasmlet.cli import log; log.configure('info'); import structlog; structlog.get_logger().info('hello', a=1)"


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colours_are_left_out_where_nobody_wants_them(environment: dict[str, str], coloured: bool) -> None:
    ours, theirs = pty.openpty()
    kept = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM")}
    subprocess.run([sys.executable, "-c", LOGS], stderr=theirs, env=kept | environment, check=True, timeout=60)
    os.close(theirs)
    said = os.read(ours, 4096)
    os.close(ours)
    assert b"hello" in said
    assert (b"\x1b[" in said) == coloured
