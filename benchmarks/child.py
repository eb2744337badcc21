"""What a benchmark runs in processes of its own: `python -m benchmarks.child WHAT ...`; `processes` starts them.

    plane DIRECTORY NODE                                     an embedded control plane, with credentials for that node
    node PROVIDER NAME KUBECONFIG CLIENT_CA STATE_DIR PODS [SETTING=VALUE ...]
                                                             a node, as `wasmlet run` would run it
    bare NAME KUBECONFIG                                     what a node writes, and nothing else (`benchmarks.bare`)
    observed FILE PROVIDER NAME ...                          the same, with its pods' phases written to a file
    agent PROVIDER STATE_DIR KEYS                            an agent, with keys of `wasmlet-agent`
    host KUBECONFIG CLIENT_CA STATE_DIR NAMESPACE            a host of agents, as `wasmlet host` would run it
    joined URL TOKEN STATE_DIR COUNT                         so many agents that run nothing and join a host
    operator KUBECONFIG NAMESPACE                            an operator, as `wasmlet operator` would run it
    alone MODULE                                             a module under wasmtime and nothing else, once

Each process prints JSON objects to stdout, one per line, the last of them with the key `ready`. It ends on SIGTERM, or
when its standard input ends. A node also reports how its memory has grown with each group of imports. So here each
function imports what it needs itself.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wasmlet

IMPORTS = (
    ("asyncio, TLS", ("asyncio", "ssl")),
    ("aiohttp, uvloop, orjson", ("aiohttp", "uvloop", "orjson")),
    ("wasmlet and the rest", ("wasmlet.node", "wasmlet.cli.run")),
)
"""The groups of modules that a node imports; the memory is reported after each group."""


def _say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def _when_orphaned(stop: Callable[[], None]) -> None:
    """Call `stop` when standard input ends: then the process that started this one is gone."""
    import asyncio

    def look() -> None:
        if not os.read(0, 64):
            asyncio.get_running_loop().remove_reader(0)
            stop()

    asyncio.get_running_loop().add_reader(0, look)


async def _plane(directory: str, node: str) -> None:
    import asyncio

    from wasmlet.testing import ControlPlane

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    _when_orphaned(stop.set)
    async with ControlPlane(directory=directory, schedule=False, node_monitor_grace=None) as plane:
        _say(
            ready=True,
            kubeconfig=str(plane.kubeconfig),
            client_ca_file=str(plane.client_ca_file),
            node_kubeconfig=str(plane.node_kubeconfig(node)),
        )
        await stop.wait()


async def _agent(provider: str, state_dir: str, keys: str) -> None:
    import asyncio

    from aiohttp import web
    from wasmlet_agent.config import AgentConfig
    from wasmlet_agent.server import Server
    from wasmlet_agent.serving import started

    of = Path(keys)
    config = AgentConfig(
        tls_cert_file=of / "agent.crt",
        tls_key_file=of / "agent.key",
        client_ca_file=of / "ca.crt",
        state_dir=Path(state_dir),
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    _when_orphaned(stop.set)
    async with started(config, lambda: _provider(provider)) as agent:
        runner = Server(agent, config.guard()).runner()
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=config.context(config.client_ca_file)).start()
        _say(ready=True, url=f"https://127.0.0.1:{runner.addresses[0][1]}")
        await stop.wait()
        await runner.cleanup()


async def _host(kubeconfig: str, client_ca: str, state_dir: str, namespace: str) -> None:
    import asyncio

    from wasmlet_remote.host.config import HostConfig
    from wasmlet_remote.host.host import hosting

    from wasmlet import NodeConfig
    from wasmlet.kubelet.descriptors import raise_descriptor_limit
    from wasmlet.node.node import trim_memory

    common = NodeConfig(
        kubeconfig=Path(kubeconfig),
        node_ip="127.0.0.1",
        client_ca_file=Path(client_ca),
        state_dir=Path(state_dir),
        serving_csr=False,
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    _when_orphaned(stop.set)
    raise_descriptor_limit()
    async with hosting(HostConfig(listen="127.0.0.1:0", namespace=namespace), common) as url:
        trim_memory()
        _say(ready=True, url=url)
        await stop.wait()


async def _joined(url: str, token: str, state_dir: str, count: str) -> None:
    import asyncio

    from wasmlet_agent.join.joining import JoinConfig
    from wasmlet_agent.serving import stay_joined

    from wasmlet.concurrency import first_of
    from wasmlet.testing import ReferenceProvider

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    _when_orphaned(stop.set)
    state = Path(state_dir)
    os.mkdir(state, 0o700)
    configs = [
        JoinConfig(node_name=f"bench-{number}", token=token, state_dir=state / str(number))
        for number in range(int(count))
    ]

    async def all_join() -> None:
        async with asyncio.TaskGroup() as group:
            for config in configs:
                group.create_task(stay_joined(config, url, ReferenceProvider))

    _say(ready=True)
    await first_of(all_join(), stop.wait())


async def _operator(kubeconfig: str, namespace: str) -> None:
    from wasmlet.operator.config import OperatorConfig
    from wasmlet.operator.operator import run

    _when_orphaned(lambda: os.kill(os.getpid(), signal.SIGTERM))
    _say(ready=True)
    await run(OperatorConfig(kubeconfig=Path(kubeconfig), namespace=namespace))


def _provider(name: str, *settings: str) -> wasmlet.Provider:
    from wasmlet.cli import providers
    from wasmlet.testing import ReferenceProvider

    if name == ReferenceProvider.name:
        return ReferenceProvider()
    kind = providers.load(name)
    config_of: Any = kind.Config
    words = dict(setting.split("=", 1) for setting in settings)
    given = {name: Path(value) if name.endswith(("_file", "_dir")) else value for name, value in words.items()}
    return kind(config_of(**given) if given else config_of(allow_local_modules=True))


async def _node(
    provider: str, name: str, kubeconfig: str, client_ca: str, state_dir: str, pods: str, *settings: str
) -> None:
    import wasmlet
    from wasmlet.node import run

    class Told(wasmlet.Node):
        """A node that reports that it is ready."""

        async def __aenter__(self) -> Told:
            await super().__aenter__()
            _say(ready=True)
            return self

    config = wasmlet.NodeConfig(
        kubeconfig=Path(kubeconfig),
        node_name=name,
        node_ip="127.0.0.1",
        port=0,
        client_ca_file=Path(client_ca),
        max_pods=int(pods),
        state_dir=Path(state_dir),
        serving_csr=False,
        drain_on_exit=True,
    )
    node = Told(_provider(provider, *settings), config)
    _when_orphaned(node.request_stop)
    await run(node)


async def _bare(name: str, kubeconfig: str) -> None:
    import asyncio

    from benchmarks.api import opened
    from benchmarks.bare import play
    from wasmlet.kube import load_identity

    stop, ready = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    _when_orphaned(stop.set)
    async with opened(await load_identity(Path(kubeconfig))) as api, asyncio.TaskGroup() as group:
        playing = group.create_task(play(api, name, ready))
        await ready.wait()
        _say(ready=True)
        await stop.wait()
        playing.cancel()


async def _observed(file: str, *arguments: str) -> None:
    from benchmarks import phases

    phases.install(Path(file))
    await _node(*arguments)


def _alone(module: str) -> None:
    """Run a module that prints for how many nanoseconds it has computed, and report that number."""
    import wasmtime

    engine = wasmtime.Engine()
    linker, store, wasi = wasmtime.Linker(engine), wasmtime.Store(engine), wasmtime.WasiConfig()
    linker.define_wasi()
    reader, writer = os.pipe()
    wasi.stdout_file = f"/proc/self/fd/{writer}"
    store.set_wasi(wasi)
    start = linker.instantiate(store, wasmtime.Module.from_file(engine, module)).exports(store)["_start"]
    assert isinstance(start, wasmtime.Func)
    start(store)
    _say(ready=True, nanoseconds=int(os.read(reader, 64)))


def _import() -> None:
    """Import what a node needs, and report the memory after each group."""
    stages = {"Python": rss()}
    for name, modules in IMPORTS:
        for module in modules:
            importlib.import_module(module)
        stages[name] = rss()
    _say(imports=stages)


def rss(pid: int | None = None) -> float:
    """Resident memory of a process, or of this one, in MiB."""
    lines = Path(f"/proc/{pid or 'self'}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


_WHAT: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "node": _node,
    "bare": _bare,
    "observed": _observed,
    "plane": _plane,
    "agent": _agent,
    "host": _host,
    "joined": _joined,
    "operator": _operator,
}


def main() -> None:
    """Run the process that the arguments name."""
    what, *arguments = sys.argv[1:]
    if what == "alone":
        _alone(*arguments)
        return
    if what == "node":
        _import()
    from wasmlet.cli import log
    from wasmlet.cli.execution import run_loop
    from wasmlet.errors import WasmletError

    log.configure("error")
    try:
        run_loop(_WHAT[what](*arguments))
    except WasmletError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
