"""Runs a click command as this process: its event loop, its error messages and its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from wasmlet.cli.output import OutputLost, guard
from wasmlet.errors import ConfigError, WasmletError

if TYPE_CHECKING:
    from logging import LogRecord

EXIT_CODES = """\b
Exit codes:
  0    It did what it was told to do. A node was told to end.
  1    It could not. A line on standard error says why.
  2    The command line is wrong, or the value of an option, wherever it comes from.
  130  Ctrl-C ended it.
  141  Nobody reads its output any more.
"""


class BadOption(ConfigError):
    """An option has a value that cannot be: on the command line, in its variable, or in the file of --config."""


def need_linux() -> None:
    """See that this is Linux, before anything is imported that only Linux has.

    Raises:
        ConfigError: it is not.
    """
    if sys.platform != "linux":
        system = {"darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
        raise ConfigError(
            f"nodes run on Linux only, and this is {system}; run wasmlet in a Linux virtual machine or container"
        )


def end_unless_on_linux() -> None:
    """End the process with a message unless this is Linux; for programs that only run nodes."""
    try:
        need_linux()
    except ConfigError as error:
        fail(error)


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run the coroutine on the loop of uvloop, or on that of asyncio if uvloop is not installed."""
    import asyncio
    import logging
    import signal

    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # as whoever started us had it: no child's end could be seen
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    logging.getLogger("asyncio").addFilter(_of_interest)
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def _of_interest(record: LogRecord) -> bool:
    """Whether to log what the loop reports: uvloop reports what TLS still does on connections that we have ended."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, RuntimeError) and str(error).endswith((" handler is closed", " loop is closed")))


def execute(command: click.Command, args: Sequence[str] | None, name: str) -> NoReturn:
    """Run a command as this process: what goes wrong is said in a line or two, and the exit code tells of it."""
    guard()
    command.epilog = command.epilog or EXIT_CODES
    try:
        try:
            # Subcommands take over which options show help.
            command.main(args=args, prog_name=name, standalone_mode=False, help_option_names=["-h", "--help"])
            sys.stdout.flush()
        except BaseExceptionGroup as group:  # of tasks that failed together: the first of ours says why
            told, rest = group.split(_says_why)
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
    except (WasmletError, OSError) as error:
        if not _says_why(error):
            raise
        if completing(name) in os.environ:  # a message would be in the midst of what somebody types
            sys.exit(1)
        fail(error if isinstance(error, WasmletError) else ConfigError(_of_system(error)))
    sys.exit(0)


def completing(name: str) -> str:
    """The variable in which a shell asks the program of that name what may come next."""
    return f"_{name}_COMPLETE".replace("-", "_").upper()


def _says_why(error: BaseException) -> bool:
    """Whether its words tell a user what to mend: ours do, and those of the system."""
    return isinstance(error, WasmletError) or (isinstance(error, OSError) and error.errno is not None)


def _of_system(error: OSError) -> str:
    """What a system call failed with, which no command has foreseen: a file without permission, a name too long."""
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the directory that this is run in is no longer there; go to another one"
    except OSError:
        pass
    return str(error)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def fail(error: WasmletError) -> NoReturn:
    """Say what is wrong and end the process."""
    click.echo(f"Error: {error}", err=True)
    sys.exit(2 if isinstance(error, BadOption) else 1)
