"""`wasmlet top` on a terminal, drawn by rich: it fills the screen, and gives it back as it was."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from wasmlet.cli.top.options import SORTS
from wasmlet.cli.top.tables import GAP, Table

_WORDS = "  ".join(f"{name[0]} {name.upper() if name == 'cpu' else name}" for name in SORTS)
_HELP = f"q quit  {_WORDS}  ↑ ↓ PgUp PgDn"
_BAD = ("Error", "Failed", "BackOff", "OOMKilled", "NotReady", "Unknown", "Invalid", "ExitCode", "Signal")


def makes_screens() -> bool:
    """Whether standard output is a terminal on which lines can be overwritten."""
    console = Console()
    return console.is_terminal and not console.is_dumb_terminal


@attrs.define
class View:
    """What the user has chosen meanwhile.

    Attributes:
        sort: the order of pods.
        first: the number of the first pod that is on the screen.
        page: how many pods are on the screen.
        count: how many there are.
    """

    sort: str
    first: int = 0
    page: int = 1
    count: int = 0

    def press(self, key: str) -> bool:
        """Do what the key means; whether that changes anything."""
        before = self.sort, self.first
        steps = {"up": -1, "down": 1, "page up": -self.page, "page down": self.page, "home": -self.count}
        if key in steps or key == "end":
            self.first += steps.get(key, self.count)
        elif sort := {name[0]: name for name in SORTS}.get(key.lower()):
            self.sort, self.first = sort, 0
        self.bound()
        return before != (self.sort, self.first)

    def bound(self) -> None:
        """Have `first` such that the screen is full where there is enough to fill it."""
        self.first = max(0, min(self.first, self.count - self.page))


class Screen:
    """The terminal's screen. Use as a context manager; whatever ends it, the screen is as it was before."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> Screen:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(None, None, None)

    def draw(self, title: str, head: Sequence[str], trouble: str, nodes: Table, pods: Table, view: View) -> None:
        """Show it.

        Args:
            trouble: what is wrong, shown in up to three lines; "" where nothing is.
        """
        width, height = self._console.size
        parts: list[Text | RichTable] = [_line(title, "bold"), *(_line(text) for text in head)]
        if trouble:
            said = Text(trouble, "yellow").wrap(self._console, width)
            parts += said[:3]
        rest = height - len(parts) - 3  # an empty line before each table, and the last line
        most = max(1, min(len(nodes.rows), rest // 3 - 1))
        if nodes.rows:
            parts += [Text(""), _table(nodes, width, 0, most)]
            rest -= most + 1
            if (hidden := len(nodes.rows) - most) > 0:
                parts.append(_line(f"and {hidden} more: see one with --node", "dim"))
                rest -= 1
        view.page, view.count = max(1, rest - 1), len(pods.rows)
        view.bound()
        parts.append(Text(""))
        if pods.rows:
            parts.append(_table(pods, width, view.first, view.page, SORTS[view.sort]))
            shown = f"{view.first + 1}-{min(view.count, view.first + view.page)} of {view.count}   "
        else:
            parts.append(_line("no pods", "dim"))
            shown = ""
        # The last line is at the bottom, however few there are above it.
        free = view.page - min(view.count, view.page) if pods.rows else view.page
        parts += [Text("")] * free
        parts.append(_line(shown + _HELP, "dim"))
        self._live.update(Group(*parts), refresh=True)


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _table(table: Table, width: int, first: int, count: int, sorted_by: str = "") -> RichTable:
    table, widths = table.fitted(width)
    drawn = RichTable(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column, wide in zip(table.columns, widths, strict=True):
        drawn.add_column(
            Text(column.name, "bold underline" if column.name == sorted_by else "bold"),
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=wide,
        )
    names = [column.name for column in table.columns]
    for row in table.rows[first : first + count]:
        cells = [Text(cell, _style(name, cell)) for name, cell in zip(names, row, strict=True)]
        drawn.add_row(*cells)
    return drawn


def _style(column: str, cell: str) -> str:
    if column == "STATUS":
        if any(word in cell for word in _BAD):
            return "red"
        return "green" if cell in ("Running", "Ready") else "dim" if cell == "Completed" else "yellow"
    return "yellow" if column == "RESTARTS" and cell != "0" else ""
