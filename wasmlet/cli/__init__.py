"""The command line: `wasmlet`, and the same with a provider fixed (`wasmlet-wasmtime`).

Every option can be given as a flag, as a `WASMLET_*` variable or as a key of a TOML file; the first of these counts.
The options are made from the attrs classes that hold the settings (`wasmlet.cli.options`). What a user can get wrong is
answered in a line or two on stderr with exit code 1 or 2, never with a traceback.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import click

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells count."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `wasmlet`."""
    try:
        from wasmlet.cli.commands import main  # takes a second, in which Ctrl-C is no error either

        main(args)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def main_for(provider: str, args: Sequence[str] | None = None, more: str | None = None) -> NoReturn:
    """Entry point of a provider's own command: `wasmlet run` with the provider fixed.

    Args:
        args: what comes after the program's name; None takes those of this process.
        more: what `--help` says after the first line, as which other commands the program has.
    """
    try:
        from wasmlet.cli.execution import end_unless_on_linux

        end_unless_on_linux()
        from wasmlet.cli.run import main_for

        main_for(provider, args, more)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def execute(command: "click.Command", args: Sequence[str] | None, name: str) -> NoReturn:
    """Run a click command of a provider's own as this process, with the errors and exit codes of `wasmlet`.

    Args:
        args: what comes after the program's name; None takes those of this process.
        name: what help and errors call the command.
    """
    from wasmlet.cli.execution import execute

    execute(command, args, name)


__all__ = ["execute", "main", "main_for"]
