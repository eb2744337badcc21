"""Pods as plain processes of the node: an example of a wasmlet provider that is a distribution of its own.

`provider` has what the node loop calls, `pod` a pod's life, `log` what its containers write, and `manifest` what is
refused. Start with `provider`.
"""

from __future__ import annotations

from wasmlet_processes.provider import ProcessConfig, ProcessProvider

__all__ = ["ProcessConfig", "ProcessProvider", "main"]


def main() -> None:
    """`wasmlet-processes`: `wasmlet run` with this provider."""
    from wasmlet.cli import main_for

    main_for("processes")
