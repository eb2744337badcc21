"""The commands of `wasmlet`, each of which is imported when it is used: `wasmlet --help` imports none of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import click

from wasmlet.cli.execution import execute
from wasmlet.cli.installed import Commands
from wasmlet.cli.version import version_option

OWN = {
    "completion": ("wasmlet.cli.completion:command", "Print what has a shell complete these commands."),
    "demo": ("wasmlet.cli.demo.command:command", "Try it: a control plane, a node and pods, here."),
    "doctor": ("wasmlet.cli.doctor:DoctorCommand", "Say what would keep a node from working here."),
    "inspect": ("wasmlet.cli.inspecting:inspect_command", "Show what a module is, and what it needs."),
    "new": ("wasmlet.cli.new.command:command", "Write a package with a provider or an engine of your own."),
    "operator": ("wasmlet.cli.operator:command", "Make fleets of nodes, as the cluster's pools say."),
    "providers": ("wasmlet.cli.listing:command", "List the providers that are installed."),
    "pull": ("wasmlet.cli.artifacts:pull_command", "Pull a module from a registry into a file."),
    "push": ("wasmlet.cli.artifacts:push_command", "Push a module to a registry."),
    "run": ("wasmlet.cli.run:RunCommand", "Run a node against a cluster."),
    "top": ("wasmlet.cli.top.command:top", "Show nodes and their pods, live."),
}
"""For each command where it is, and what the list of commands says of it, in a line."""


@click.group(cls=Commands, own=OWN, params=[version_option()])
def cli() -> None:
    """Run WebAssembly modules as Kubernetes pods."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `wasmlet`."""
    execute(cli, args, "wasmlet")
