"""How a command is run as this process: its loop, its errors and its exit code. Knows no command, and no cluster."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from wasmlet.cli.options import read_toml
from wasmlet.cli.output import OutputLost, guard
from wasmlet.errors import WasmletError

LEVELS = ("debug", "info", "warning", "error")


def common() -> list[click.Parameter]:
    """The options that every command has which runs for long: --config and --log-level."""
    return [
        click.Option(
            ["--config"],
            type=click.Path(path_type=Path),
            is_eager=True,
            callback=read_toml,
            metavar="FILE",
            envvar="WASMLET_CONFIG",
            show_envvar=True,
            help="TOML file with options, as max-pods = 200.",
        ),
        click.Option(
            ["--log-level"],
            type=click.Choice(LEVELS),
            default="info",
            show_default=True,
            envvar="WASMLET_LOG_LEVEL",
            show_envvar=True,
            help="How much is logged.",
        ),
    ]


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run the coroutine on the fastest loop there is."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def execute(command: click.Command, args: Sequence[str] | None, name: str) -> NoReturn:
    """Run a command as this process: what goes wrong is said in a line or two, and the exit code tells of it."""
    guard()
    try:
        try:
            command.main(args=args, prog_name=name, standalone_mode=False)
            sys.stdout.flush()
        except BaseExceptionGroup as group:  # of tasks that failed together: the first of ours says why
            told, rest = group.split(WasmletError)
            if told is None or rest is not None:
                raise
            raise next(_leaves(told)) from None
    except OutputLost as lost:
        if not lost.gone:
            click.echo(f"Error: {lost}", err=True)
        sys.exit(lost.code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except WasmletError as error:
        fail(error)
    sys.exit(0)


def _leaves(group: BaseExceptionGroup[WasmletError]) -> Iterator[WasmletError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def fail(error: WasmletError) -> NoReturn:
    """Say what is wrong and end the process."""
    click.echo(f"Error: {error}", err=True)
    sys.exit(1)
