"""How many descriptors a process has open, for tests that nothing leaks.

Such a test compares with `<=`: what an earlier test left to the collector, and what a process closes a moment after it
has answered, may go while the test runs.
"""

from __future__ import annotations

import gc
import os


def open_descriptors(pid: int | None = None) -> int:
    """How many descriptors a process has open: this one without a pid, and then after its garbage is collected."""
    if pid is None:
        gc.collect()
    return len(os.listdir(f"/proc/{pid or 'self'}/fd"))
