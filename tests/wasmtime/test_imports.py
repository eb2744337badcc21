"""What the in-worker module loads: each child of its zygote pays for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import wasmlet_wasmtime

from wasmlet.worker import wire

LOAD = """
import importlib.util, sys
code = sys.argv[1]
spec = importlib.util.spec_from_file_location("worker", code + "/__init__.py", submodule_search_locations=[code])
sys.modules["worker"] = importlib.util.module_from_spec(spec)
from worker.guest import zygote
zygote.load(sys.argv[2])
print(*sys.modules)
"""


def test_no_module_has_something_done_at_each_fork() -> None:
    """These have, and it writes to some hundred pages of memory, which each child would get copies of."""
    module = Path(wasmlet_wasmtime.__file__).with_name("guest.py")
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, wire.CODE, str(module)], capture_output=True, text=True, check=True
    )
    assert not {"threading", "random", "logging", "concurrent.futures"} & set(loaded.stdout.split())
