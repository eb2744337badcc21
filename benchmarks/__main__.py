"""`python -m benchmarks`: measure a node beside the least that any node has to do, and print tables or JSON.

Nothing is asserted, and figures are compared within one run only. `burst`, `first_byte`, `memory` and others measure;
the processes that they start end with this one, on Ctrl-C as well.
"""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import click
import orjson

from benchmarks import handlers, report
from benchmarks.burst import Load, rounds
from benchmarks.cluster import Cluster, RealCluster, open_cluster
from benchmarks.memory import memory
from benchmarks.report import Progress
from wasmlet.cli import log, providers
from wasmlet.cli.execution import run_loop
from wasmlet.errors import ConfigError, WasmletError
from wasmlet.runtime.network.config import BIN_DIRS

REFERENCE = "reference"
ENGINE = "wasmtime"
MOST_ASLEEP, MOST_SERVING = 200, 50
"""How many pods of a class sleep side by side to measure the memory of one, and how many where they serve."""
MOST_ADDRESSES = 100
"""How many pods get addresses by CNI at once."""
LEAST_ROUNDS = 9
"""The least number of rounds of requests to guests that serve."""

Found = dict[str, Any]


@attrs.frozen
class Options:
    """What is measured, and where."""

    what: tuple[str, ...]
    pods: int
    rounds: int
    hold: float
    starts: int
    real: RealCluster | None
    handler: str = ""
    files: bool = False


@attrs.frozen
class Alone:
    """A measurement that needs no API server, or makes its own.

    Attributes:
        check: raises ConfigError where it cannot be measured here; then it is left out.
        measure: is given an empty directory. It imports what it needs when it is called, since that needs the provider.
    """

    check: Callable[[], object]
    measure: Callable[[Path, Options, Progress], Awaitable[Found]]


async def measure(options: Options, progress: Progress) -> Found:
    """Measure what was asked for, one after the other, each on a new embedded control plane, or on the cluster given.

    Raises:
        BenchmarkFailed: something could not be measured.
    """
    found: Found = {}
    for what in options.what:
        if (alone := ALONE.get(what)) is not None:
            if _possible(alone.check, what, progress):
                with tempfile.TemporaryDirectory(prefix="wasmlet-bench-") as directory:
                    found[what] = await alone.measure(Path(directory), options, progress)
            continue
        async with open_cluster(options.real) as cluster:
            found["api_server"] = cluster.name
            progress.line(f"{what}: {options.pods} pods at a time, {cluster.name}")
            load = Load(options.pods)
            if what == "memory":
                found[what] = await _memory(cluster, load, options, progress)
            elif what == "node":
                async with cluster.running_node(REFERENCE, options.pods) as node:
                    found[what] = report.summary(await rounds(cluster, load, options.rounds, progress, node))
            elif what == "bare":
                async with cluster.running_bare() as node:
                    found[what] = report.summary(await rounds(cluster, load, options.rounds, progress, node))
            elif _possible(partial(providers.load, ENGINE), what, progress):
                measured = {"account": _account, "asleep": _asleep}.get(what, _engine)
                found |= await measured(cluster, load, options, progress)
    return found


def _possible(check: Callable[[], object], what: str, progress: Progress) -> bool:
    """Whether this can be measured here; where it cannot, say that it is left out."""
    try:
        check()
    except ConfigError as error:
        progress.line(f"{what} is left out: {error}")
        return False
    return True


async def _engines(directory: Path, options: Options, progress: Progress) -> Found:
    """The RuntimeClasses of the engines side by side."""
    from benchmarks.classes import Size, classes

    return await classes(directory, Size(options.starts, min(options.pods, MOST_ASLEEP)), progress)


async def _serving(directory: Path, options: Options, progress: Progress) -> Found:
    """Guests that serve, beside a native process."""
    from benchmarks.servers.serving import Size, serving

    size = Size(max(options.rounds, LEAST_ROUNDS), options.starts, min(options.pods, MOST_SERVING))
    return await serving(directory, size, progress)


async def _components(directory: Path, options: Options, progress: Progress) -> Found:
    """Components that serve, beside other ways to serve them."""
    from benchmarks.servers.components import components

    return await components(directory, options.rounds, options.starts, progress)


async def _actors(directory: Path, options: Options, progress: Progress) -> Found:
    """An actor beside a component that does the same."""
    from benchmarks.servers.actors import actors
    from benchmarks.servers.serving import Size

    size = Size(max(options.rounds, LEAST_ROUNDS), options.starts, min(options.pods, MOST_SERVING))
    return await actors(directory, size, progress)


def _can_add_addresses() -> None:
    if os.geteuid() != 0 or not any((path / "ptp").exists() for path in BIN_DIRS):
        raise ConfigError("it needs root and CNI plugins")


async def _addresses(directory: Path, options: Options, progress: Progress) -> Found:
    """Addresses by CNI, beside the plugins alone."""
    from benchmarks.addresses import Size, addresses

    return await addresses(directory, Size(min(options.pods, MOST_ADDRESSES), options.rounds), progress)


async def _remote(directory: Path, options: Options, progress: Progress) -> Found:
    """A node with an agent beside one without."""
    from benchmarks.agents.remote import MOST, Size, columns, remote

    engine = None
    if _possible(partial(providers.load, ENGINE), f"remote with {ENGINE}", progress):
        from benchmarks.guest import sleeper

        engine = ENGINE, sleeper(directory)
    load, size = Load(min(options.pods, MOST)), Size(options.rounds, options.starts, options.hold)
    found = await remote(directory, load, size, progress, engine)
    bursts = {
        name: report.summary(found[rounds])
        for name, rounds in (("bursts", "rounds"), ("engine_bursts", "engine_rounds"))
        if rounds in found
    }
    return {**found, **bursts, "columns": columns(found), "pods": load.pods}


async def _host(directory: Path, options: Options, progress: Progress) -> Found:
    """A host and agents that have joined it."""
    from benchmarks.agents.hosted import AGENTS, hosted
    from benchmarks.agents.idle import Size

    return await hosted(directory, Size(min(options.pods, AGENTS), options.hold), progress)


async def _operator(directory: Path, options: Options, progress: Progress) -> Found:
    """An operator and its pools."""
    from benchmarks.agents.idle import Size
    from benchmarks.agents.pools import MOST, pools

    return await pools(directory, Size(min(options.pods, MOST), options.hold), progress)


ALONE = {
    "engines": Alone(partial(providers.load, ENGINE), _engines),
    "serving": Alone(partial(providers.load, ENGINE), _serving),
    "components": Alone(partial(providers.load, ENGINE), _components),
    "actors": Alone(partial(providers.load, "wascc"), _actors),
    "addresses": Alone(_can_add_addresses, _addresses),
    "remote": Alone(partial(providers.load, "remote"), _remote),
    "host": Alone(partial(providers.load, "remote"), _host),
    "operator": Alone(dict, _operator),
}
TITLES = {
    "engines": "the classes of engines, by turns",
    "serving": "guests that serve, by turns",
    "components": "components that serve, by turns",
    "actors": "an actor and a component that count, by turns",
    "addresses": "addresses by CNI (ptp, host-local), by turns",
}
"""Of those that found columns and nothing else."""
WHAT = ("node", "bare", "memory", "account", "asleep", ENGINE, *ALONE)


async def _memory(cluster: Cluster, load: Load, options: Options, progress: Progress) -> Found:
    """The memory of a node that runs nothing or, where a handler is given, pods of the engine."""
    if not options.handler:
        return await memory(cluster, load, REFERENCE, progress)
    providers.load(ENGINE)
    from benchmarks.guest import sleeper

    load = attrs.evolve(load, image=sleeper(cluster.directory, files=options.files), handler=options.handler)
    return await memory(cluster, load, ENGINE, progress)


async def _account(cluster: Cluster, load: Load, options: Options, progress: Progress) -> Found:
    """What a pod costs, step by step: of the handler given, or of each that the engine has."""
    from benchmarks.account import account
    from benchmarks.guest import sleeper

    image, found = sleeper(cluster.directory, files=options.files), {}
    for handler in (options.handler,) if options.handler else handlers.handlers(ENGINE):
        load = attrs.evolve(load, image=image, handler=handler)
        found[handler] = await account(cluster, load, options.starts, ENGINE, progress)
    return {"account": found}


async def _asleep(cluster: Cluster, load: Load, options: Options, progress: Progress) -> Found:
    """Pods of a class of the engine while nothing happens."""
    from benchmarks.asleep import asleep
    from benchmarks.guest import sleeper

    load = attrs.evolve(load, image=sleeper(cluster.directory, files=options.files), handler=options.handler)
    return {"asleep": await asleep(cluster, load, ENGINE, options.hold, progress)}


async def _engine(cluster: Cluster, load: Load, options: Options, progress: Progress) -> Found:
    """A burst with an engine, and then one pod at a time."""
    from benchmarks.first_byte import first_byte
    from benchmarks.guest import pss, sleeper, workers

    kind = providers.load(ENGINE)
    image = sleeper(cluster.directory, files=options.files)
    load = attrs.evolve(load, image=image, handler=options.handler)
    async with cluster.running_node(ENGINE, options.pods) as node:

        async def of_workers(_: str) -> dict[str, float]:
            return {"guests_pss_mib_per_pod": pss(workers(cluster.directory)) / load.pods}

        bursts = await rounds(cluster, load, options.rounds, progress, node, of_workers)
    settings: Any = kind.Config
    state = cluster.directory / "first"
    state.mkdir(mode=0o700)
    provider = kind(settings(allow_local_modules=True))
    starts = await first_byte(provider, image, state, options.starts, progress)
    of_engine = f"{options.handler or handlers.handlers(ENGINE)[0]} of {ENGINE}"
    return {"of_engine": of_engine, ENGINE: report.summary(bursts), "first_byte": report.summary(starts)}


def tables(found: Found) -> str:
    """All that was found, for people."""
    pods, where = found["pods"], found.get("api_server")
    texts = []
    if "node" in found:
        texts.append(report.table(f"{pods} pods at once, {where}; the node runs nothing", found["node"]))
    if "bare" in found:
        texts.append(report.table(f"{pods} pods at once, {where}; a bare node", found["bare"]))
    if ENGINE in found:
        texts.append(report.table(f"{pods} pods at once, {where}; {found['of_engine']}", found[ENGINE]))
    if "first_byte" in found:
        texts.append(report.table(f"one pod at a time, a process of {ENGINE}", found["first_byte"], "fork, exec"))
    texts += [report.columns(title, found[what]) for what, title in TITLES.items() if what in found]
    if "remote" in found:
        remote = found["remote"]
        text = f"{remote['pods']} pods at once, behind an agent"
        texts.append(report.table(f"{text} that runs nothing", remote["bursts"], "local"))
        if "engine_bursts" in remote:
            texts.append(report.table(f"{text}; each a process of {ENGINE}", remote["engine_bursts"], "local"))
        texts.append(report.columns("pods behind an agent, over TLS on loopback", remote["columns"]))
    if "host" in found:
        from benchmarks.agents.idle import columns

        text = f"a host of {found['host']['count']} agents that run nothing"
        texts.append(report.columns(text, columns(found["host"], "host", "an agent")))
    if "operator" in found:
        from benchmarks.agents.idle import columns

        text = f"an operator of {found['operator']['count']} pools, and one before"
        texts.append(report.columns(text, columns(found["operator"], "operator", "a pool")))
    for handler, titles in found.get("account", {}).items():
        texts += [report.columns(f"a pod of {handler}: {title}", rows) for title, rows in titles.items()]
    if "asleep" in found:
        texts.append(report.columns(f"{pods} pods asleep", found["asleep"]))
    if "memory" in found:
        texts.append(report.stages("RSS of a node's process, MiB", found["memory"]))
    machine = found["machine"]
    texts.append(f"\n{machine['cores']} cores, load {machine['load']:.1f} before, Python {machine['python']}")
    return "\n".join(texts)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("what", nargs=-1, type=click.Choice(WHAT))
@click.option("-n", "--pods", default=1000, show_default=True, type=click.IntRange(1), help="Pods in a burst.")
@click.option("--rounds", "count", default=3, show_default=True, type=click.IntRange(1), help="Rounds of each burst.")
@click.option("--hold", default=10.0, show_default=True, type=click.FloatRange(0), help="Seconds of idling.")
@click.option("--starts", default=50, show_default=True, type=click.IntRange(1), help="Pods that start one at a time.")
@click.option("--handler", default="", help="The RuntimeClass handler of pods (wasmlet-dense).")
@click.option("--files", is_flag=True, help="The guests of a burst can open files, so their pods have directories.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="An administrator's credentials of a cluster.")
@click.option("--node-credentials", metavar="COMMAND", help="Given a node's name, prints its kubeconfig's path.")
@click.option("--client-ca-file", type=click.Path(path_type=Path), help="The CA of that cluster's clients.")
def command(
    what: tuple[str, ...],
    pods: int,
    count: int,
    hold: float,
    starts: int,
    handler: str,
    files: bool,
    as_json: bool,
    kubeconfig: Path | None,
    node_credentials: str | None,
    client_ca_file: Path | None,
) -> None:
    """Measure how fast and how small a node is, beside a bare client that makes the same writes and nothing else.

    WHAT is node (the node loop alone), bare (what a node has to write, from a process that does nothing else), memory
    (where that goes), account (what a pod costs each process, and in which phase of its life), asleep (what pods cost
    while nothing happens), wasmtime (with an engine), engines (their classes side by side, without an API server),
    serving (guests that answer requests), components (of wasi:http, beside `wasmtime serve`), actors (of waSCC, beside
    a component that does the same), addresses (by CNI, beside the plugins alone), remote (pods behind an agent, beside
    pods of the node's own), host (many agents that joined one process) or operator (which keeps pools of nodes); all of
    it without any. The API server is an embedded one, or that of --kubeconfig. --handler is for wasmtime, account,
    asleep and memory. Without it, account takes all handlers of the engine by turns, and memory is that of a node that
    runs nothing.
    """
    real = None
    if kubeconfig is not None:
        if node_credentials is None or client_ca_file is None:
            raise click.UsageError("--kubeconfig needs --node-credentials and --client-ca-file beside it")
        real = RealCluster(kubeconfig, node_credentials, client_ca_file)
    elif node_credentials is not None or client_ca_file is not None:
        raise click.UsageError("--node-credentials and --client-ca-file need --kubeconfig beside them")
    if handler:
        handlers.check(handler, ENGINE)
    log.configure("error")
    options = Options(what or WHAT, pods, count, hold, starts, real, handler, files)
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version()}

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        found = {"machine": machine, "pods": pods, **await measure(options, Progress())}
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2) if as_json else tables(found))

    run_loop(work())


def main() -> None:
    """Entry point; exits with 0, 1 where something could not be measured, or 128 and the signal's number."""
    try:
        command.main(prog_name="python -m benchmarks", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except asyncio.CancelledError:
        sys.exit(143)
    except WasmletError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
