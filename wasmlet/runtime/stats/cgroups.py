"""CPU and memory usage of a container from its control group, if it has one (`wasmlet.worker.supervisor.groups`).

A group counts everything of a container: its guest, its execs, and the kernel's memory for both. Memory is charged to
the group that used it first, so the values of all containers add up. As in a kubelet, the working set is everything
that is charged, without file pages that have not been used for a while.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs


@attrs.frozen
class Group:
    """A container's group: for each controller the version of its tree, and the directory there."""

    places: Mapping[str, tuple[int, Path]]

    @classmethod
    def of(cls, name: str, places: Mapping[str, Any]) -> Group:
        """The group of a container, by the group's name.

        Args:
            name: as on its record; "" where it has none.
            places: as `hello` of the shim says them.
        """
        found = {c: (int(place["version"]), Path(place["directory"], name)) for c, place in places.items()}
        return cls(found if name else {})

    def cpu(self) -> int | None:
        """Nanoseconds taken; None where no group counts them.

        Raises:
            OSError: the group has gone.
        """
        version, directory = self.places.get("cpuacct") or self.places.get("cpu") or (0, Path())
        if version == 1 and "cpuacct" in self.places:
            return int((directory / "cpuacct.usage").read_text("ascii"))
        if version == 2:
            return _fields(directory / "cpu.stat")["usage_usec"] * 1000
        return None

    def memory(self) -> Mapping[str, int] | None:
        """`usage`, `working` and `rss` in bytes; None where no group counts them.

        Raises:
            OSError: the group has gone.
        """
        if "memory" not in self.places:
            return None
        version, directory = self.places["memory"]
        usage = int((directory / ("memory.usage_in_bytes" if version == 1 else "memory.current")).read_text("ascii"))
        stat = _fields(directory / "memory.stat")
        inactive, rss = ("total_inactive_file", "total_rss") if version == 1 else ("inactive_file", "anon")
        return {"usage": usage, "working": max(0, usage - stat.get(inactive, 0)), "rss": stat.get(rss, 0)}


def _fields(path: Path) -> dict[str, int]:
    return {
        name: int(value)
        for name, _, value in (line.partition(" ") for line in path.read_text("ascii").split("\n"))
        if value
    }
