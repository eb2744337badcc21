"""`wasmlet new provider NAME` and `wasmlet new engine NAME`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from wasmlet.cli.new.writing import Names, write


@click.group("new")
def command() -> None:
    """Write a package with a provider or an engine of your own.

    The package has types, tests that pass at once, and the entry points by which wasmlet finds it.
    """


def _names(context: click.Context, parameter: click.Parameter, value: str) -> Names:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", value) or len(value) > 40:
        raise click.BadParameter(
            f"expected small letters, digits and dashes, a letter first, at most 40 characters; found {value!r}"
        )
    return Names(value)


_NAME = click.argument("names", metavar="NAME", callback=_names)
_DIRECTORY = click.option(
    "--directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where it is written; wasmlet-NAME here without it.",
)


@command.command("provider", short_help="A provider: what runs pods in some way of your own.")
@_NAME
@_DIRECTORY
def _provider(names: Names, directory: Path | None) -> None:
    """Write the package wasmlet-NAME with a provider, which runs each container as a process of the machine.

    Put what you run in place of the processes. The contract suite tells you what it has to keep to.
    """
    _write("provider", names, directory)


@command.command("engine", short_help="An engine: what runs WebAssembly in some way of your own.")
@_NAME
@_DIRECTORY
def _engine(names: Names, directory: Path | None) -> None:
    """Write the package wasmlet-NAME with a WebAssembly engine, which compiles and runs modules with wasmtime.

    Put your engine in place of wasmtime, in the in-worker module. wasmlet does all that is around a container.
    """
    _write("engine", names, directory)


def _write(kind: str, names: Names, directory: Path | None) -> None:
    target = directory or Path(names.distribution)
    for file in write(kind, names, target):
        click.echo(f"wrote {file}")
    click.echo(f"next:\n  cd {target}\n  pip install -e '.[test]'\n  pytest\n  wasmlet providers")
    click.echo(f"  wasmlet demo --provider {names.name}{' pod.yaml' if kind == 'provider' else ''}")
