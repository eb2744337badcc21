"""The agent: serves any installed `Provider` over HTTP, so that a node loop elsewhere can drive it.

`protocol` is what both sides speak; `wasmlet_remote` has the other side. Nothing here imports a Kubernetes client.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `wasmlet-agent`."""
    try:
        from wasmlet.cli.execution import end_unless_on_linux

        end_unless_on_linux()
        from wasmlet_agent.cli import main  # takes a second, in which Ctrl-C is no error either

        main(args)
    except KeyboardInterrupt:
        sys.exit(130)
