"""An agent with the reference provider, as a process: `python -m tests.remote.reference_agent --state-dir DIR ...`.

Its options are those of `wasmlet-agent`. What a test has to look into is told on standard output: the modules that the
process has loaded, when it is sent SIGUSR1.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import click
from wasmlet_agent.config import AgentConfig
from wasmlet_agent.serving import serve

from wasmlet.cli import execution, log
from wasmlet.cli.options import instance_of, options_of
from wasmlet.testing.reference import ReferenceProvider


def _run(**values: Any) -> None:
    log.configure("debug")
    execution.run_loop(serve(instance_of(AgentConfig, values), ReferenceProvider))


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda *_: print(*sorted(sys.modules), flush=True))
    execution.execute(click.Command("agent", params=options_of(AgentConfig), callback=_run), None, "agent")
