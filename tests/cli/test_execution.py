"""What a command's loop says by itself on stderr."""

from __future__ import annotations

import subprocess
import sys

REPORTS = """
import asyncio, socket
from wasmlet.cli.execution import run_loop

async def work():
    ours, theirs = socket.socketpair()
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    class Ended(asyncio.Protocol):
        def connection_lost(self, error):
            ended.set()

    transport, _ = await loop.create_connection(Ended, sock=ours)
    transport.abort()
    await ended.wait()
    try:
        transport.write(b"x")  # as its TLS layer does with what is left when a connection is ended while it is read
    except RuntimeError as error:
        loop.call_exception_handler({"message": "Fatal error on SSL protocol", "exception": error})
    else:
        raise AssertionError("expected that nothing can be written to a closed connection")
    loop.call_exception_handler({"message": "news", "exception": RuntimeError("another")})
    theirs.close()

run_loop(work())
"""


def test_a_connection_that_was_ended_while_it_was_read_is_no_news() -> None:
    """Many requests are under way when an operator ends; a traceback for each would hide why it ended."""
    found = subprocess.run([sys.executable, "-c", REPORTS], capture_output=True, text=True, timeout=60, check=True)
    assert "Fatal error" not in found.stderr
    assert "the handler is closed" not in found.stderr
    assert found.stderr.startswith("news")
