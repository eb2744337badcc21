"""`RemoteProvider`: a provider whose pods run where a `wasmlet-agent` is, driven over HTTP.

`provider` has the calls, `link` the requests, `session` how an agent is taken over, `changes` what an agent tells,
`streams` exec, attach and port-forward. `interlink` has the provider for plugins of interLink.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from wasmlet_remote.config import Config
from wasmlet_remote.provider import RemoteProvider

__all__ = ["Config", "RemoteProvider", "main"]


def main() -> None:
    """`wasmlet-remote`: `wasmlet run` with this provider; with interLink's where `--protocol interlink` says so."""
    from wasmlet.cli import main_for

    main_for("interlink" if _protocol(sys.argv[1:]) == "interlink" else "remote")


def _protocol(args: Sequence[str]) -> str:
    """What the arguments or the environment say is spoken, before they are parsed: options depend on it."""
    for i, arg in enumerate(args):
        if arg == "--protocol" and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith("--protocol="):
            return arg.removeprefix("--protocol=")
    return os.environ.get("WASMLET_PROTOCOL", "")
