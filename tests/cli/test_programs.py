"""What holds for every program: `-h` and `--version`, whole sentences, exit codes, and how little `--help` loads."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from wasmlet_agent import cli as agent

from wasmlet.cli import commands, completion
from wasmlet.cli.execution import completing

BIN = Path(sys.executable).parent
PROGRAMS = completion.programs()


def run(program: str, *args: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wasmlet"] if program == "-m" else [str(BIN / program)]
    done = subprocess.run(
        [*command, *args],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=100,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_all_programs_are_known() -> None:
    assert {"wasmlet", "wasmlet-agent", "wasmlet-wasmtime", "wasmlet-wasmer", "wasmlet-wascc"} < set(PROGRAMS)


@pytest.mark.parametrize("program", ["-m", *PROGRAMS])
def test_help_of_a_program(program: str) -> None:
    shown = run(program, "-h").stdout
    assert shown.startswith(f"Usage: {'wasmlet' if program == '-m' else program} ")
    assert "--version" in shown
    assert "Exit codes:\n    0  " in shown
    if program == "wasmlet-wasmer":
        assert "`wasmlet-wasmer setup` makes it" in " ".join(shown.split())


@pytest.mark.parametrize("program", ["-m", *PROGRAMS])
def test_version_of_a_program(program: str) -> None:
    lines = run(program, "--version").stdout.splitlines()
    assert re.fullmatch(r"wasmlet \d+\.\d+\.\d+", lines[0])
    assert re.fullmatch(r"Python 3\.\d+\.\d+\S*, Linux \w+", lines[1])
    assert [line for line in lines[2:] if re.fullmatch(r"wasmlet-wasmtime \d\S+, engine wasmtime \d+\.\d+\.\d+", line)]
    assert [line for line in lines[2:] if line.startswith("wasmlet-processes ")]


def test_help_loads_little() -> None:
    """Each module takes a part of a millisecond; `wasmlet --help` is to be there at once."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from wasmlet.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print(*sorted(set(sys.modules) - before), sep='\\n', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    loaded = done.stderr.splitlines()
    assert "Commands:" in done.stdout
    assert "wasmlet.cli.commands" in loaded
    heavy = {"aiohttp", "asyncio", "attrs", "cryptography", "kubernetes_asyncio", "rich", "ssl", "structlog", "yaml"}
    assert {name.partition(".")[0] for name in loaded} & heavy == set()
    assert len(loaded) < 200, loaded


def _all(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _all(below, click.Context(below, parent=context, info_name=name))


@pytest.mark.parametrize("command", [commands.cli, agent.cli], ids=["wasmlet", "wasmlet-agent"])
def test_no_help_is_cut_off(command: click.Command) -> None:
    for each, context in _all(command, click.Context(command, info_name=command.name, terminal_width=80)):
        lines = each.get_help(context).splitlines()
        assert [line for line in lines if re.search(r"[a-z,;]\.\.\.$", line)] == [], context.command_path


def test_exit_codes_are_those_that_help_names(tmp_path: Path) -> None:
    assert run("wasmlet", "inspect", str(tmp_path / "none.wasm"), code=1).stderr.startswith("Error: ")
    assert "No such option" in run("wasmlet", "--nothing", code=2).stderr
    reader = subprocess.run(f"{BIN}/wasmlet --help | :; echo ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash",
                            capture_output=True, text=True, timeout=100)  # fmt: skip
    assert (reader.stdout, reader.stderr) in (("141\n", ""), ("0\n", ""))  # 0 where it was faster than its reader


@pytest.mark.parametrize(
    "start",
    [
        "from wasmlet.cli import main; main(['demo'])",
        "from wasmlet.cli import main; main(['run', '--help'])",
        "from wasmlet.cli import main_for; main_for('wasmtime')",
        "from wasmlet_agent import main; main([])",
        "import wasmlet; wasmlet.run(None)",
    ],
)
def test_where_nodes_do_not_run_it_is_said(start: str) -> None:
    code = f"import sys; sys.platform = 'darwin'; {start}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert done.stderr == (
        "Error: nodes run on Linux only, and this is macOS; run wasmlet in a Linux virtual machine or container\n"
    )


# -- completion


def bash(words: str) -> list[str]:
    """What bash offers after these words, by the real script."""
    program = words.split()[0]
    function = f"_{program.replace('-', '_')}_completion"
    script = (
        f'eval "$(wasmlet completion bash)"; set -- {words}; COMP_WORDS=({words}); '
        f'COMP_CWORD=$(({len(words.split())} - 1)); {function} {program}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes() -> None:
    assert bash("wasmlet pro") == ["providers"]
    assert bash("wasmlet run --provider wasmt") == ["wasmtime"]
    assert bash("wasmlet-agent jo") == ["join"]
    assert bash("wasmlet run --provider none --max-p") == []  # and says nothing in the midst of a line


def test_a_tab_completes_files(tmp_path: Path) -> None:
    """At the prompt of a real bash: where a command takes a file, or something that may be one."""
    for name in ("hello.wasm", "pods.yaml", "node.toml"):
        (tmp_path / name).touch()
    with prompt(tmp_path) as (terminal, until):
        for typed, completed in {
            "wasmlet inspect hel": "hello.wasm",
            "wasmlet push hel": "hello.wasm",
            "wasmlet pull r.example/a:1 -o hel": "hello.wasm",
            "wasmlet demo pod": "pods.yaml",
            "wasmlet run --config nod": "node.toml",
        }.items():
            os.write(terminal, f"{typed}\t".encode())
            until(completed)
            os.write(terminal, b"\x15")  # Ctrl-U: away with the line


@pytest.mark.parametrize(("shell", "at", "answer"), [("zsh", "2", "file\nhel\n_\n"), ("fish", "hel", "file,hel\n")])
def test_other_shells_are_told_to_complete_files(shell: str, at: str, answer: str) -> None:
    """Their scripts do so at the word `file`. Neither shell is on every machine that runs these tests."""
    asked = {"_WASMLET_COMPLETE": f"{shell}_complete", "COMP_WORDS": "wasmlet inspect hel", "COMP_CWORD": at}
    assert run("wasmlet", **asked).stdout == answer
    script = run("wasmlet", "completion", shell).stdout
    assert {"zsh": "_path_files -f", "fish": "__fish_complete_path"}[shell] in script


@contextmanager
def prompt(directory: Path) -> Iterator[tuple[int, Callable[[str], None]]]:
    """A bash with our completion: its terminal, and a function that waits until a text has appeared there."""
    ours, theirs = os.openpty()
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "PS1": "$ ", "TERM": "dumb"}
    process = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=directory, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = ""

    def until(text: str) -> None:
        nonlocal shown
        while text not in shown:
            assert select.select([ours], [], [], 100)[0], f"never shown: {text}; shown: {shown}"
            shown += os.read(ours, 4096).decode()
        shown = shown.partition(text)[2]

    try:
        os.write(ours, b'eval "$(wasmlet completion bash)"; echo rea""dy\n')
        until("ready")
        yield ours, until
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_each_shell_has_all_programs(shell: str) -> None:
    script = run("wasmlet", "completion", shell).stdout
    for program in PROGRAMS:
        assert f"{completing(program)}={shell}_complete" in script


def test_how_full_a_disk_may_be_is_a_percentage() -> None:
    said = run("wasmlet-wasmtime", "--help").stdout
    assert "--image-gc-high-threshold PERCENT" in said
    assert "--image-gc-low-threshold PERCENT" in said
