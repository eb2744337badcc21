"""The output for people: progress during the run, and tables at the end. `summary` works out medians and ratios.

Progress goes to stderr: one line that is overwritten on a terminal, a plain line for each step elsewhere.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TextIO

TICK_SECONDS = 0.2

NAMES = {
    "all_running": "all Running, s",
    "running_p50": "created to Running, p50, s",
    "running_p99": "created to Running, p99, s",
    "all_gone": "all gone, s",
    "cpu_ms_per_pod_to_running": "CPU of the node to Running, ms a pod",
    "cpu_ms_per_pod_to_gone": "CPU of the node to gone, ms a pod",
    "rss_mib": "RSS of the node, all Running, MiB",
    "guests_pss_mib_per_pod": "memory of its workers (PSS), MiB a pod",
    "cpu_ms_per_pod_agent": "CPU of the agent to gone, ms a pod",
    "p50": "started to first byte, p50, ms",
    "p99": "started to first byte, p99, ms",
}
"""The label of each figure in a table."""

Found = dict[str, dict[str, float]]
"""Figures by their names, and for each what it is of: `{"first byte, p50, ms": {"native": 1.3, ...}, ...}`."""
Rounds = Sequence[Mapping[str, Mapping[str, float]]]


class Progress:
    """Shows how far the benchmark is.

    Args:
        stream: where to write; on a terminal, one line is overwritten again and again.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._step = ""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show the name of the step while the context is open."""
        self._step = name
        self._show("")
        try:
            yield
        finally:
            self._wipe()

    @asynccontextmanager
    async def counting(self, what: str, total: int, count: Callable[[], int]) -> AsyncIterator[None]:
        """Show how many of `total` are done while the context is open; without a terminal, only at the end."""

        async def follow() -> None:
            while True:
                self._show(f"{count()} of {total} {what}")
                await asyncio.sleep(TICK_SECONDS)

        task = asyncio.create_task(follow()) if self._live else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if not self._live:
            self.line(f"{self._step}: {count()} of {total} {what}")

    def result(self, figures: Mapping[str, float]) -> None:
        """Print the figures of a step."""
        self.line(f"{self._step}: " + ", ".join(f"{key} {_number(value)}" for key, value in figures.items()))

    def line(self, text: str) -> None:
        """Print a line that stays."""
        print(text, file=self._stream, flush=True)

    def _show(self, detail: str) -> None:
        if self._live:
            text = f"{time.strftime('%H:%M:%S')} {self._step}  {detail}"
            print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)

    def _wipe(self) -> None:
        if self._live:
            print("\r\x1b[K", end="", file=self._stream, flush=True)


def summary(rounds: Rounds) -> dict[str, Any]:
    """The rounds; the medians of node and floor; and the ratio of both in each round, and its median."""
    ratios = {
        key: [figures["node"][key] / figures["floor"][key] for figures in rounds]
        for key in rounds[0]["floor"]
        if key in rounds[0]["node"]
    }
    return {
        "rounds": list(rounds),
        "node": {key: statistics.median(f["node"][key] for f in rounds) for key in rounds[0]["node"]},
        "floor": {key: statistics.median(f["floor"][key] for f in rounds) for key in rounds[0]["floor"]},
        "ratios": ratios,
        "ratio": {key: statistics.median(values) for key, values in ratios.items()},
    }


def table(title: str, found: Mapping[str, Any], floor: str = "floor") -> str:
    """A summary as a table: a line for each figure."""
    rows = [("", "node", floor, "ratio", "(of each round)")]
    for key, value in found["node"].items():
        least, ratio = found["floor"].get(key), found["ratio"].get(key)
        each = " ".join(f"{r:.2f}" for r in found["ratios"].get(key, ()))
        rows.append(
            (
                NAMES.get(key, key),
                _number(value),
                "" if least is None else _number(least),
                "" if ratio is None else f"{ratio:.2f}",
                each,
            )
        )
    return _aligned(title, rows)


def columns(title: str, found: Mapping[str, Mapping[str, float]]) -> str:
    """A table of things that are compared: a line for each figure, a column for each thing."""
    names = list(dict.fromkeys(name for figures in found.values() for name in figures))
    rows = [("", *names)]
    for key, figures in found.items():
        rows.append((key, *(_number(figures[name]) if name in figures else "" for name in names)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(["", title, *(f"  {line}" for line in lines)])


def stages(title: str, found: Mapping[str, float]) -> str:
    """Named figures in MiB, as a table."""
    return _aligned(title, [(name, _number(value)) for name, value in found.items()])


def _aligned(title: str, rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if 0 < place < 4 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(["", title, *(f"  {line}" for line in lines)])


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
