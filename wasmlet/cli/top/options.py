"""What a user asks of `wasmlet top`."""

from __future__ import annotations

from pathlib import Path

import attrs

SORTS = {"cpu": "CPU", "memory": "MEMORY", "name": "POD", "restarts": "RESTARTS", "start": "START", "age": "AGE"}
"""The orders of pods, and which column each goes by. The first letter of an order is its key on a terminal."""


@attrs.frozen(kw_only=True)
class Options:
    """What is asked for.

    Attributes:
        kubeconfig, context: which cluster, and as whom; None as kubectl finds them.
        namespace: whose pods; None for all.
        selector: labels that pods have, as kubectl writes them.
        node: the one node that is shown; None for all of wasmlet's.
        sort: one of `SORTS`.
        interval: seconds between two readings of CPU and memory.
        once: print what there is now, and end.
        headers: print the names of columns, where lines are printed.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    selector: str | None = None
    node: str | None = None
    sort: str = "cpu"
    interval: float = 5.0
    once: bool = False
    headers: bool = True
