"""`wasmlet-wasmer setup`: makes a virtual environment of Python 3.10 with wasmer in it, from pinned packages."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from wasmlet import ConfigError
from wasmlet_wasmer.environment import PYTHON, WASMER, ask, data_directory, interpreters

LOCK = Path(__file__).with_name("environment.lock")
"""What is installed: exact versions with the hashes of their wheels."""
INSTALL = (
    "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
    "--require-hashes", "--requirement",
)  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Where the environment is made; without it in the user's data directory, where nodes find it.",
)
@click.option("--python", type=click.Path(path_type=Path), help=f"The Python {PYTHON} that it is made of.")
def command(directory: Path | None, python: Path | None) -> None:
    """Make the environment that wasmer runs in: a Python 3.10 with wasmer, from the package index."""
    make(directory or data_directory(os.environ), python)


def setup(arguments: Sequence[str], name: str) -> NoReturn:
    """Run the command with these arguments, and end the process."""
    from wasmlet.cli import execute

    execute(command, list(arguments), name)


def make(directory: Path, python: Path | None) -> None:
    """Make the environment, unless it is there and whole.

    Args:
        python: what to make it of; None for the first that is found.

    Raises:
        ConfigError: there is no such Python, the directory holds something else, or the packages cannot be had.
    """
    made = directory / "bin" / "python"
    if not ask(made).lacks:
        click.echo(f"{directory} has wasmer {WASMER} already")
        return
    if directory.exists() and not (directory / "pyvenv.cfg").exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory} holds something else than a virtual environment; give another --directory")
    base = _base(python)
    click.echo(f"making {directory} of {base}")
    _run([base, "-m", "venv", "--clear", directory], f"{base} cannot make a virtual environment")
    click.echo(f"installing wasmer {WASMER}")
    _run([made, *INSTALL, LOCK], "wasmer cannot be installed")
    if lacks := ask(made).lacks:
        raise ConfigError(f"wasmer does not run in {directory}: {lacks}")
    click.echo(f"ready: {made}")


def _base(chosen: Path | None) -> Path:
    """The Python to make an environment of."""
    found = [chosen] if chosen is not None else list(interpreters(os.environ))
    why = []
    for path in found:
        is_there = ask(path)
        if is_there.python == PYTHON:
            return path
        why.append(f"{path}: {is_there.lacks}")
    raise ConfigError(
        f"no Python {PYTHON} was found ({'; '.join(why) or 'none on PATH, none of uv or pyenv'}); install one "
        f"(uv python install {PYTHON}, or pyenv install {PYTHON}), or name it with --python"
    )


def _run(arguments: Sequence[str | Path], failure: str) -> None:
    """Run a program, whose output is shown as it comes."""
    try:
        code = subprocess.run(arguments, stdin=subprocess.DEVNULL).returncode
    except OSError as error:
        raise ConfigError(f"{failure}: {error}") from error
    if code:
        raise ConfigError(f"{failure}: {arguments[0]} ended with status {code}")
