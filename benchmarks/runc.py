"""runc, for comparison with the engines: `echo` in a container, where runc is installed and may be used.

The container's root is the machine's own programs and libraries, read only, so that nothing has to be fetched.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from benchmarks.first_byte import native
from benchmarks.processes import BenchmarkFailed

_PARTS = ("/usr", "/bin", "/lib", "/lib64")


class Runc:
    """Runs containers of one bundle. Raises `BenchmarkFailed` where runc is missing or cannot be used here."""

    def __init__(self, directory: Path) -> None:
        found = shutil.which("runc")
        if found is None:
            raise BenchmarkFailed("runc is not installed")
        self._command = (found, "--root", str(directory / "runc"), "run", "--bundle", str(directory / "bundle"))
        self._count = 0
        root = directory / "bundle" / "rootfs"
        for part in _PARTS:
            (root / part[1:]).mkdir(parents=True, exist_ok=True)
        (root / "proc").mkdir()
        mounts = [
            {"destination": part, "type": "bind", "source": part, "options": ["rbind", "ro"]}
            for part in _PARTS
            if os.path.exists(part)
        ]
        spec = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 65534, "gid": 65534},
                "args": ["/bin/echo", "ready"],
                "cwd": "/",
                "noNewPrivileges": True,
            },
            "root": {"path": "rootfs", "readonly": True},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, *mounts],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
        }
        (directory / "bundle" / "config.json").write_text(json.dumps(spec))
        self.start()

    def start(self) -> float:
        """Run the container once; milliseconds to its first byte."""
        self._count += 1
        try:
            return native(*self._command, f"bench-{os.getpid()}-{self._count}")
        except EOFError:
            raise BenchmarkFailed("runc cannot run a container here") from None
