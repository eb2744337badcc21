"""Loads structlog without rich, which it would load wherever that is installed.

structlog draws tracebacks with rich, and nothing here has it do so. rich and its highlighter are some 6 MiB in each
process, of nodes too, and `wasmlet top` alone uses them. `wasmlet` imports this before anything that logs; a program
that has loaded either of the two before keeps what it has.
"""

from __future__ import annotations

import sys


def load_structlog() -> None:
    """Load structlog now, without rich where neither is loaded yet; a later import of rich finds it as always."""
    if sys.modules.keys().isdisjoint(("rich", "structlog")):
        sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it fails, as where it is not installed
        try:
            import structlog  # noqa: F401
        finally:
            del sys.modules["rich"]


load_structlog()
