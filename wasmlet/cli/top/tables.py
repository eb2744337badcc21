"""Rows and columns of `wasmlet top`: which pods come first, what a cell says, and what fits into a line. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

import attrs

from wasmlet.cli.top.cluster import NodeRow, PodRow, Snapshot
from wasmlet.cli.top.usage import Amount, Usage
from wasmlet.controlplane.http.cells import duration

UNKNOWN = "-"
GAP = 2
"""Spaces between two columns."""


@attrs.frozen
class Column:
    """A column.

    Attributes:
        right: its cells are aligned to the right.
        least: how many characters are kept if a line is too long; None for all.
        spare: if a line is still too long, columns are left out, those with the highest number first; 0 means never.
    """

    name: str
    right: bool = False
    least: int | None = None
    spare: int = 0


@attrs.frozen
class Table:
    """Columns, and rows with a cell for each."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    def fitted(self, width: int) -> tuple[Table, Sequence[int]]:
        """The table with the columns that fit into that many characters, and how wide each is."""
        kept = list(range(len(self.columns)))
        widths = [max([len(c.name), *(len(row[i]) for row in self.rows)]) for i, c in enumerate(self.columns)]
        least = [w if c.least is None else min(w, c.least) for c, w in zip(self.columns, widths, strict=True)]

        def needed(of: Sequence[int]) -> int:
            return sum(of[i] for i in kept) + GAP * (len(kept) - 1)

        while needed(least) > width and (spare := [i for i in kept if self.columns[i].spare]):
            kept.remove(max(spare, key=lambda i: self.columns[i].spare))
        while (excess := needed(widths) - width) > 0:
            wide = [i for i in kept if widths[i] > least[i]]
            if not wide:
                break
            widest = max(wide, key=lambda i: widths[i])
            second = max((widths[i] for i in wide if i != widest), default=0)
            widths[widest] = max(least[widest], widths[widest] - excess, min(second, widths[widest] - 1))
        rows = [[_cut(row[i], widths[i]) for i in kept] for row in self.rows]
        table = Table([self.columns[i] for i in kept], rows)
        return table, [widths[i] for i in kept]


def _cut(text: str, width: int) -> str:
    """The text in that many characters: its beginning and its end, since names of pods differ there."""
    if len(text) <= width:
        return text
    end = width // 3
    return f"{text[: width - end - 1]}…{text[-end:] if end else ''}"


_NODES = (
    Column("NODE", least=12),
    Column("STATUS"),
    Column("PROVIDER", spare=2),
    Column("PODS", right=True),
    Column("CPU", right=True),
    Column("CPU%", right=True, spare=3),
    Column("MEMORY", right=True),
    Column("MEM%", right=True, spare=4),
    Column("AGE", right=True, spare=1),
)
_PODS = (
    Column("NAMESPACE", least=9, spare=1),
    Column("POD", least=22),
    Column("READY", spare=2),
    Column("STATUS", least=12),
    Column("RESTARTS", right=True),
    Column("CPU", right=True),
    Column("MEMORY", right=True),
    Column("START", right=True),
    Column("AGE", right=True),
    Column("NODE", least=12, spare=3),
)


def node_table(shown: Snapshot, usage: Usage, now: datetime, *, partial: bool) -> Table:
    """A row for each node.

    Args:
        partial: not all pods were asked for, so that it is not known how many a node has.
    """
    counts = Counter(pod.node for pod in shown.pods if pod.phase not in ("Succeeded", "Failed"))

    def row(node: NodeRow) -> list[str]:
        amount = usage.nodes.get(node.name)
        return [
            node.name,
            node.status,
            node.provider,
            f"{UNKNOWN if partial else counts[node.name]}/{node.pods}",
            cores(amount),
            _share(amount.cpu if amount else None, node.cpu),
            size(amount),
            _share(amount.memory if amount else None, node.memory),
            _age(node.created, now),
        ]

    return Table(_NODES, [row(node) for node in shown.nodes])


def pod_table(shown: Snapshot, usage: Usage, sort: str, now: datetime) -> Table:
    """A row for each pod, in that order."""

    def row(pod: PodRow) -> list[str]:
        amount = usage.pods.get((pod.namespace, pod.name))
        return [
            pod.namespace,
            pod.name,
            pod.ready,
            pod.status,
            str(pod.restarts),
            cores(amount),
            size(amount),
            UNKNOWN if pod.start is None else _start(pod.start),
            _age(pod.created, now),
            pod.node or "<none>",
        ]

    return Table(_PODS, [row(pod) for pod in ordered(shown.pods, usage, sort)])


def ordered(pods: Sequence[PodRow], usage: Usage, sort: str) -> list[PodRow]:
    """The pods in that order: most first, the youngest first, or by name; those without a figure last."""

    def amount(pod: PodRow) -> Amount:
        return usage.pods.get((pod.namespace, pod.name)) or Amount(-1, -1)

    keys: dict[str, Callable[[PodRow], float]] = {
        "name": lambda pod: 0,
        # By what is shown, so that equal ones do not change places at each reading.
        "cpu": lambda pod: -round(amount(pod).cpu * 1000),
        "memory": lambda pod: -round(amount(pod).memory / 2**20, 1),
        "restarts": lambda pod: -pod.restarts,
        "start": lambda pod: -(-1 if pod.start is None else pod.start),
        "age": lambda pod: -pod.created.timestamp(),
    }
    return sorted(pods, key=lambda pod: (keys[sort](pod), pod.namespace, pod.name))


def headline(shown: Snapshot, usage: Usage) -> Sequence[str]:
    """What is true of all together: a line for nodes and pods, and one for what they take."""
    ready = sum(node.ready for node in shown.nodes)
    phases = Counter(pod.phase for pod in shown.pods)
    restarts = sum(pod.restarts for pod in shown.pods)
    phased = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()))
    starts = sorted(pod.start for pod in shown.pods if pod.start is not None)
    took = (
        f"start p50 {_start(_quantile(starts, 0.5))}, p99 {_start(_quantile(starts, 0.99))}"
        if starts
        else "start unknown"
    )
    amounts = [usage.nodes[node.name] for node in shown.nodes if node.name in usage.nodes]
    taken = Amount(sum(a.cpu for a in amounts), sum(a.memory for a in amounts)) if amounts else None
    return (
        f"{_number(len(shown.nodes), 'node')}, {ready} ready; {_number(len(shown.pods), 'pod')}"
        + (f": {phased}" if phased else ""),
        f"CPU {cores(taken)}, memory {size(taken)}; {_number(restarts, 'restart')}; {took}",
    )


def _start(seconds: float) -> str:
    """How long a start took; the API has whole seconds, so that a quick one takes none."""
    return duration(int(seconds)) if seconds >= 1 else "<1s"


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _quantile(values: Sequence[float], share: float) -> float:
    """The least of the sorted values that at least that share of them does not exceed."""
    return values[max(0, math.ceil(len(values) * share) - 1)]


def cores(amount: Amount | None) -> str:
    """CPU as `kubectl top` shows it: in thousandths of a core."""
    return UNKNOWN if amount is None else f"{round(amount.cpu * 1000)}m"


def size(amount: Amount | None) -> str:
    """Memory as `kubectl top` shows it: in MiB, with a decimal below 10."""
    if amount is None:
        return UNKNOWN
    mebibytes = amount.memory / 2**20
    return f"{mebibytes:.1f}Mi" if mebibytes < 10 else f"{mebibytes:.0f}Mi"


def _share(taken: float | None, there: float) -> str:
    return UNKNOWN if taken is None or there <= 0 else f"{100 * taken / there:.0f}%"


def _age(created: datetime, now: datetime) -> str:
    return duration(max(0, int((now - created).total_seconds())))
