"""`RemoteProvider`: a provider whose pods run where a `wasmlet-agent` is, driven over HTTP.

`provider` has the calls, `link` the requests, `session` how an agent is taken over, `changes` what an agent tells,
`streams` exec, attach and port-forward.
"""

from __future__ import annotations

from wasmlet_remote.config import Config
from wasmlet_remote.provider import RemoteProvider

__all__ = ["Config", "RemoteProvider", "main"]


def main() -> None:
    """`wasmlet-remote`: `wasmlet run` with this provider."""
    from wasmlet.cli import main_for

    main_for("remote")
