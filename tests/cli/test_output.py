"""Commands whose output nobody reads, or has no room for: no traceback, and an exit code that says so."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
HELLO = Path(__file__).parents[2] / "examples" / "hello" / "hello.wasm"
COMMANDS = [
    ("wasmlet", "--help"),
    ("wasmlet", "--version"),
    ("wasmlet", "run", "--help"),
    ("wasmlet", "demo", "--help"),
    ("wasmlet", "providers"),
    ("wasmlet", "inspect", str(HELLO)),
    ("wasmlet-wasmtime", "--help"),
    ("wasmlet-processes", "--help"),
    ("wasmlet-wasmer", "setup", "--help"),
]


async def run(*command: str, stdout: int, stderr: int = asyncio.subprocess.PIPE) -> tuple[int | None, str]:
    """Exit code and standard error of a command."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WASMLET_", "KUBE"))}
    process = await asyncio.create_subprocess_exec(
        command[0] if "/" in command[0] else BIN / command[0], *command[1:],
        env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=stdout, stderr=stderr,
    )  # fmt: skip
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    return process.returncode, (err or b"").decode()


@pytest.fixture
def full() -> object:
    with open("/dev/full", "wb") as file:
        yield file.fileno()


@pytest.fixture
def unread() -> object:
    """The end of a pipe whose other end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_a_full_disk_is_said(command: tuple[str, ...], full: int) -> None:
    code, said = await run(*command, stdout=full)
    assert (code, said) == (1, "Error: cannot write to standard output: No space left on device\n")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_a_reader_that_has_gone_is_no_error_to_tell_of(command: tuple[str, ...], unread: int) -> None:
    assert await run(*command, stdout=unread) == (141, "")


@pytest.mark.parametrize("lines", [1, 4, 6])
async def test_a_demo_whose_reader_has_gone_ends_what_it_began(lines: int) -> None:
    """`wasmlet demo | head -LINES`."""
    script = f'set -o pipefail; {BIN}/wasmlet demo --port 0 | head -{lines}; echo "codes ${{PIPESTATUS[*]}}" >&2'
    code, said = await run("/bin/bash", "-c", script, stdout=asyncio.subprocess.PIPE)
    assert said == "codes 141 0\n"
    assert code == 0


async def test_a_demo_on_a_full_disk(full: int) -> None:
    code, said = await run("wasmlet", "demo", "--port", "0", stdout=full)
    assert (code, said) == (1, "Error: cannot write to standard output: No space left on device\n")


@pytest.mark.parametrize("command", [("run",), ("runn",), ("demo", "/nowhere.yaml")])
async def test_the_exit_code_is_right_where_errors_cannot_be_said(command: tuple[str, ...], full: int) -> None:
    code, _ = await run("wasmlet", *command, stdout=full, stderr=full)
    assert code == (1 if command[0] == "demo" else 2)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
async def test_streams_that_are_closed(closed: str) -> None:
    code, said = await run("/bin/bash", "-c", f"{BIN}/wasmlet --help {closed}", stdout=asyncio.subprocess.DEVNULL)
    assert (code, said) == (0, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", [f"inspect {HELLO}", "demo --port 0"])
async def test_an_event_loop_whose_streams_are_closed(command: str, closed: str) -> None:
    code, said = await run("/bin/bash", "-c", f"{BIN}/wasmlet {command} {closed}", stdout=asyncio.subprocess.DEVNULL)
    assert (code, said) == (0, "")


async def test_a_program_without_a_kubeconfig_says_so_in_a_line(tmp_path: Path) -> None:
    program = tmp_path / "node.py"
    program.write_text(
        "import wasmlet\nfrom wasmlet.testing import ReferenceProvider\nwasmlet.run(ReferenceProvider())\n"
    )
    code, said = await run(sys.executable, str(program), stdout=asyncio.subprocess.DEVNULL)
    assert code == 1
    assert said.startswith("Error: ")
    assert said.count("\n") == 1
    assert "KUBECONFIG" in said
