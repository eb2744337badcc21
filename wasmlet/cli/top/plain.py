"""`wasmlet top` as lines of text: what a file, a pipe or a simple terminal gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wasmlet.cli.top.tables import GAP, Table

_ENDLESS = 10**6


def lines(head: Sequence[str], tables: Sequence[Table], *, headers: bool) -> Iterator[str]:
    """The lines: a summary, then the tables that have rows, with empty lines between them.

    Args:
        head: the lines of the summary.
        headers: whether to print the summary and the names of the columns.
    """
    if headers:
        yield from head
    first = not headers
    for table in tables:
        if table.rows:
            if not first:
                yield ""
            first = False
            yield from _rows(table, headers)


def _rows(table: Table, headers: bool) -> Iterator[str]:
    table, widths = table.fitted(_ENDLESS)
    names = [[column.name for column in table.columns]] if headers else []
    for row in (*names, *table.rows):
        cells = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, table.columns, strict=True)
        ]
        yield (" " * GAP).join(cells).rstrip()
