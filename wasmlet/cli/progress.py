"""How far something is, on a terminal: a bar with bytes, a rate, and the time that is left. Elsewhere nothing."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

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
        """So many bytes of so many."""
        if not self._shown:
            return
        if self._bar is None:
            self._bar = _progress()
            self._bar.add_task(self._label, total=whole)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=there, total=whole)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
