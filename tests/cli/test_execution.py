"""What a command's loop says by itself on stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent

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


def test_ends_of_children_are_seen_where_whoever_started_the_command_ignored_those_of_its_own() -> None:
    program = """
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
from wasmlet.cli.execution import run_loop

async def work():
    print(os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {}), 0)[1] >> 8)

run_loop(work())
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (found.stdout, found.stderr) == ("3\n", "")


def said(script: str, directory: Path) -> str:
    """What a shell script says on standard error that runs `wasmlet`, which fails."""
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=directory,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=100,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("words", ["inspect ./{}.wasm", "demo ./{}.wasm", "push ./{}.wasm registry.example/one:1"])
def test_a_name_that_no_file_can_have(words: str, tmp_path: Path) -> None:
    assert "File name too long" in said(f"wasmlet {words.format('x' * 300)}", tmp_path)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("inspect ./one.wasm", "the directory that this is run in is no longer there; go to another one"),
        ("demo ./one.wasm", "one.wasm: there is no such file"),
        ("pull registry.example/one:1", "the directory that this is run in is no longer there; go to another one"),
    ],
)
def test_a_directory_that_is_no_longer_there(words: str, why: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    assert why in said(f'rmdir "$PWD" && wasmlet {words}', gone)


@pytest.mark.parametrize("words", ["inspect {}/one.wasm", "inspect {}", "demo {}/one.wasm"])
def test_a_directory_that_one_may_not_look_into(words: str, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    as_others = "setpriv --bounding-set=-dac_override,-dac_read_search " if os.geteuid() == 0 else ""
    assert "Permission denied" in said(f"{as_others}wasmlet {words.format(closed)}", tmp_path)


def test_an_error_of_ours_that_has_no_cause_is_not_hidden() -> None:
    code = (
        "import click; from wasmlet.cli.execution import execute\n"
        "@click.command()\n"
        "def broken(): raise TimeoutError\n"
        "execute(broken, [], 'broken')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "TimeoutError"
