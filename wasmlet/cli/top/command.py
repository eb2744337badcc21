"""The command `wasmlet top`: reads its options and runs `wasmlet.cli.top.live`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wasmlet.cli.execution import run_loop
from wasmlet.cli.top.options import SORTS, Options


@click.command("top")
@click.option(
    "--kubeconfig", type=click.Path(path_type=Path), metavar="FILE", help="As kubectl's; KUBECONFIG without it."
)
@click.option("--context", metavar="NAME", help="Which context of the kubeconfig.")
@click.option("-n", "--namespace", metavar="NAME", help="Only the pods of this namespace.")
@click.option("-A", "--all-namespaces", is_flag=True, help="The pods of all namespaces; this is the default.")
@click.option("-l", "--selector", metavar="LABELS", help="Only pods with these labels, as app=web,tier!=test.")
@click.option("--node", metavar="NAME", help="Only this node and its pods.")
@click.option(
    "--sort-by", "sort", type=click.Choice(list(SORTS)), default="cpu", show_default=True, help="The order of the pods."
)
@click.option(
    "--interval",
    type=click.FloatRange(1, 3600),
    default=5,
    show_default=True,
    metavar="SECONDS",
    help="How often CPU and memory are read.",
)
@click.option("--once", is_flag=True, help="Print what there is now, and end.")
@click.option("--no-headers", "headers", flag_value=False, default=True, help="Leave out the names of columns.")
def top(all_namespaces: bool, **values: Any) -> None:
    """Show nodes and pods of wasmlet, with restarts, CPU, memory and the time that pods took to start.

    On a terminal it goes on until q or Ctrl-C: arrows and PgUp, PgDn move, and c, m, n, r, s, a sort by CPU, memory,
    name, restarts, start and age. Elsewhere it prints lines, again after each interval.

    It needs the rights to list and watch nodes and pods. CPU and memory come from the Metrics API (metrics-server);
    where there is none, each node is asked by way of the API server, which takes the right to get nodes/proxy.
    """
    from wasmlet.cli.top.live import show

    if all_namespaces and values["namespace"]:
        raise click.UsageError("-n and -A exclude each other: give one of them")
    run_loop(show(Options(**values)))
