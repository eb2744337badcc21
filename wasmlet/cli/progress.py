"""Shows progress on a terminal: a bar with bytes, rate and time left, or a line with what is being done."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from wasmlet.sizes import size

if TYPE_CHECKING:
    from rich.progress import Progress


def on_terminal() -> bool:
    """Whether standard error is a terminal that can draw over what it shows."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Bar:
    """A bar on standard error, which goes when the context ends; rich obeys NO_COLOR.

    Args:
        label: what is done, as "pulling hello".
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Progress | None = None
        self._shown = on_terminal()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, there: int, whole: int) -> None:
        """Show that `there` of `whole` bytes are done."""
        if not self._shown:
            return
        if self._bar is None:
            self._bar = _progress()
            self._bar.add_task(self._label, total=whole)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=there, total=whole)


class Working:
    """A line on standard error with what is worked at and for how long, below all that is said on standard output.

    Use it as a context manager. Without a terminal there is no such line.
    """

    def __init__(self) -> None:
        self._line: Progress | None = None
        self._what = ""
        self._shown = on_terminal()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.show("")

    def say(self, text: str) -> None:
        """Write a line to standard output."""
        if self._line is None:
            click.echo(text)
            return
        self._line.stop()
        click.echo(text)
        self._line.start()

    def show(self, what: str) -> None:
        """Show that this is worked at; "" for nothing."""
        if not self._shown or what == self._what:
            return
        self._what = what
        if self._line is not None:
            self._line.stop()
            self._line = None
        if what:
            self._line = _timed()
            self._line.add_task(what, total=None)
            self._line.start()


def _timed() -> Progress:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Rich's own counts in thousands, which no other size here does."""

        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            return Text("?" if rate is None else f"{size(rate)}/s")

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
