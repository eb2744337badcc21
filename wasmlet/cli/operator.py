"""The command `wasmlet operator`: reads its options and runs `wasmlet.operator`."""

from __future__ import annotations

from typing import Any

import click

from wasmlet.cli import log
from wasmlet.cli.execution import run_loop
from wasmlet.cli.options import common, instance_of, options_of
from wasmlet.errors import ConfigError
from wasmlet.operator.config import OperatorConfig


@click.command("operator")
@click.option("--cleanup", is_flag=True, help="Remove all pools and their nodes, and end: before the operator goes.")
def command(cleanup: bool, **values: Any) -> None:
    """Make fleets of nodes: each WasmNodePool of the cluster is kept as it says.

    A node ends only after its pods have left it, within the budgets that they have. docs/operator.md has the way from
    nothing to a pool.
    """
    try:
        from wasmlet.operator import operator
    except ModuleNotFoundError as error:
        if error.name != "kopf":
            raise
        raise ConfigError("`wasmlet operator` needs kopf; try: pip install 'wasmlet[operator]'") from None
    log.configure(values["log_level"])
    work = operator.cleanup if cleanup else operator.run
    run_loop(work(instance_of(OperatorConfig, values)))


command.params += [*common(), *options_of(OperatorConfig)]
