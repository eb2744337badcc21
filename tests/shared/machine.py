"""What the machine that the tests run on can do, found out beside the code under test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NOBODY = 65534
ROOT = Path(__file__).parents[2]


def own_group(controller: str) -> Path:
    """Directory of the group of version 1 that this process is in; nothing is there where the machine has none."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path("/sys/fs/cgroup", controllers, path.lstrip("/"))
    return Path("/sys/fs/cgroup/missing")


def may_limit(controller: str) -> bool:
    """Whether this process may make control groups of version 1 with that controller."""
    return os.access(own_group(controller) / "cgroup.procs", os.W_OK) and os.geteuid() == 0


def as_nobody(code: str, *args: str) -> str:
    """What a Python program writes that runs as an unprivileged user, which may read whatever this one may."""
    words = [
        "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
        "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search",
        "--bounding-set=-all,+dac_read_search",
        sys.executable, "-c", code, *args,
    ]  # fmt: skip
    paths = os.pathsep.join(path for path in (str(ROOT), os.environ.get("PYTHONPATH", "")) if path)
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd="/", env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
