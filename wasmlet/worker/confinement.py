"""What keeps guests in, beside their engine: which parts are on in this shim, and why the others are not.

For people: `hello` says it, and the node shows it.
"""

from __future__ import annotations

from . import confine
from .groups import Groups


def confinement(groups: Groups) -> dict[str, str]:
    """Each part by its name: "v1: memory, pids, cpu" or "on", else "off: " and why."""
    return {"cgroup": groups.words, **confine.report()}
