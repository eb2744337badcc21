"""The control groups of shims on this machine, where this process may have any."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.shared.machine import may_limit, own_group
from tests.worker.harness import PATIENCE, Shim
from wasmlet.worker.supervisor import cgroups

CONTROLLERS = {controller for controller in ("memory", "pids", "cpu", "cpuacct") if may_limit(controller)}
ALL = len(CONTROLLERS) == 4
MEBIBYTE = 2**20


def group(shim: Shim, record: dict[str, Any], controller: str) -> Path:
    """Directory of a container's group."""
    places = shim.connection.ask("hello")["groups"]
    return Path(places[controller]["directory"], record["group"])


def groups_of(pid: int) -> dict[str, str]:
    found = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def tops(state: Path) -> list[Path]:
    """Where a shim of this state directory may have groups."""
    name = cgroups.name_of(str(state))
    names = (name, name + cgroups.LEAF)
    return [path for c in sorted(CONTROLLERS) for name in names if (path := own_group(c) / name).exists()]


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def until_gone(*paths: Path) -> None:
    eventually(lambda: not any(path.exists() for path in paths))
