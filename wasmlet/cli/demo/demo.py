"""`wasmlet demo`: a control plane, a node and pods in one command, to see it work before there is a cluster.

Everything is real except the cluster: the pods are applied through an API server on loopback, and a wasmtime node runs
their modules in worker processes (or an agent does, which a node with provider `remote` controls). Logs come back
through the node's HTTPS API, except those that the API cannot give (see `follow`). What is started here is ended here.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs

from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.cli import providers
from wasmlet.cli.demo import fleet, hints, leftovers
from wasmlet.cli.demo.engines import wanted_engines
from wasmlet.cli.demo.follow import Earlier, Say
from wasmlet.cli.demo.halves import LOCAL, Half, Place, half, no_earlier, runs_wasm, tolerating
from wasmlet.cli.demo.manifests import checked_objects, is_module, objects_of, of_module
from wasmlet.cli.demo.showing import DemoFailed, Show
from wasmlet.concurrency import Breakable
from wasmlet.controlplane.controllers.lifecycle import GRACE_SECONDS
from wasmlet.errors import ConfigError
from wasmlet.kube import Client, load_identity
from wasmlet.node import Node, NodeConfig
from wasmlet.signals import on_stop_signals
from wasmlet.testing import ControlPlane

T = TypeVar("T")

NODE_NAME = "wasmlet-demo"
PORT = 6443
EXAMPLES = {
    "wasmtime": ("hello.yaml", "web.yaml"),
    "remote": ("hello.yaml", "web.yaml"),
    "wascc": ("wascc.yaml",),
    "": ("hello.yaml",),  # an engine need not have servers, and wasmer has none
}
"""Which of `examples/` are shown with which provider of WebAssembly where the user gives no file."""


@attrs.frozen
class Settings:
    """How the demo runs.

    Attributes:
        keep: stay up until SIGINT, SIGTERM or SIGHUP.
        port: the API server's; None is 6443, or a free one where that is taken.
        grace: for how many seconds a node may be silent before it counts as gone.
        registries: where and how images are pulled.
        serve: the TCP port of the pod of a module that is a server; None if it is not a server.
        egress: whom the module may dial; None for nobody.
        provider: the name of one that is installed; `remote` is wasmtime in an agent, a process of its own.
        pool: have a pool of nodes, made by the operator, instead of one node.
        own: settings of that provider, by their names.
    """

    keep: bool = False
    port: int | None = None
    grace: float = GRACE_SECONDS
    registries: RegistryConfig = attrs.field(factory=RegistryConfig)
    serve: int | None = None
    egress: str | None = None
    provider: str = LOCAL
    pool: bool = False
    own: Mapping[str, Any] = attrs.field(factory=dict)


async def demo(file: Path | None, arguments: Sequence[str], settings: Settings, say: Say, busy: Say) -> None:
    """Show pods from Pending to Succeeded, or to where they answer.

    Args:
        file: a manifest, or a module, which is run with these arguments; None is `examples/hello.yaml` and then
            `examples/web.yaml`, or `examples/wascc.yaml` of that provider; no pods where it runs no WebAssembly.
        busy: called with what the node is working at, such as compiling a module; "" for nothing.

    Raises:
        DemoFailed: a pod failed, or nothing ran within 30 seconds.
        ConfigError: the file cannot be read, or this machine cannot run the provider or the operator.
    """
    if settings.pool:
        await asyncio.to_thread(fleet.check)
    kind = await asyncio.to_thread(providers.load, settings.provider)  # before a control plane is made for nothing
    wasm = runs_wasm(kind)
    files = [file] if file else _examples(settings.provider) if wasm else []
    acts = [await _objects(path, arguments, settings) for path in files]
    for objects in acts:
        tolerating(objects, kind.name)
    modules = files[0].absolute().parent if files else Path.cwd()
    keep = settings.keep
    stop = asyncio.Event()
    began = time.monotonic()
    await leftovers.end(say)
    with on_stop_signals(stop.set), leftovers.directory() as directory:
        async with _control_plane(settings.port, directory, settings.grace) as plane:
            say(f"control plane  {plane.url}")
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(Client(await load_identity(plane.kubeconfig)))
                earlier: Earlier = no_earlier
                if settings.pool:
                    place = Place(directory, modules, settings.registries)
                    pool = fleet.fleet(plane, client, place, example("pool.yaml").parent, stop, say)
                    await stack.enter_async_context(pool)
                else:
                    engines = await wanted_engines(settings.provider, acts, keep=keep) if wasm else ()
                    node = _node(plane, directory, modules, settings, engines, say)
                    started = await _unless_stopped(stop, stack.enter_async_context(node))
                    if started is None:
                        say("stopped")
                        return
                    earlier = started.earlier
                    took = f"{time.monotonic() - began:.1f} s"
                    say(f"node           {NODE_NAME} is Ready, provider {settings.provider} ({took})")
                    await _create_classes(client)
                if keep:  # before the pods, which may run for as long as they like
                    hints.to_type(plane.kubeconfig, acts[0] if acts else (), say, pool=settings.pool)
                strict = file is not None  # those of the examples are known to be right
                show = Show(client, earlier, say, say if keep else _nothing, busy, strict)
                await _unless_stopped(stop, _show(show, acts))
                if not acts:
                    say(f"no pods        give a manifest: wasmlet demo --provider {settings.provider} FILE.yaml")
                if keep and not stop.is_set():
                    if file is None and wasm:
                        hints.next_examples(modules, say)
                    say("up until Ctrl-C")
                    await stop.wait()
            say("stopped")
            if wasm and not keep and not stop.is_set():
                hints.next_commands(example("hello.yaml").parent, say)


def _nothing(line: str) -> None:
    """Drop a line that is of use only while the demo stays up."""


def _examples(provider: str) -> list[Path]:
    """The files to show where the user gives none, one after the other."""
    return [example(name) for name in EXAMPLES.get(provider, EXAMPLES[""])]


async def _objects(file: Path, arguments: Sequence[str], settings: Settings) -> list[dict[str, Any]]:
    if await asyncio.to_thread(is_module, file):
        return await asyncio.to_thread(of_module, file, arguments, settings.serve, settings.egress)
    if arguments:
        raise ConfigError(f"{file} is a manifest, which takes no arguments; found {' '.join(arguments)!r}")
    if settings.serve is not None:
        raise ConfigError(f"{file} is a manifest, which says itself what its pods serve; --serve is for a module")
    if settings.egress is not None:
        raise ConfigError(f"{file} is a manifest, which says itself whom its pods dial; --egress is for a module")
    return await asyncio.to_thread(objects_of, file)


async def _show(show: Show, acts: Sequence[Sequence[dict[str, Any]]]) -> None:
    for objects in acts:
        await show.run(objects)


async def _create_classes(client: Client) -> None:
    """Have those RuntimeClasses of `examples/runtimeclasses.yaml` whose handlers the node offers."""
    node = await client.get(f"/api/v1/nodes/{NODE_NAME}")
    offered = {handler["name"] for handler in node["status"].get("runtimeHandlers") or ()}
    for body in await asyncio.to_thread(checked_objects, example("runtimeclasses.yaml")):
        if body["handler"] in offered:
            await client.create("/apis/node.k8s.io/v1/runtimeclasses", body)


def example(name: str) -> Path:
    """A file of `examples/`: of the checkout, or the copy that the package carries."""
    here = Path(__file__).parents[2]
    for folder in (here.parent / "examples", here / "_examples"):
        if (folder / name).is_file():
            return folder / name
    raise DemoFailed(f"expected examples/{name} beside {here}; install wasmlet again")


@asynccontextmanager
async def _control_plane(
    port: int | None, directory: Path, node_monitor_grace: float = GRACE_SECONDS
) -> AsyncGenerator[ControlPlane, None]:
    """A control plane on that port; without one on 6443, or on another where that is taken.

    Raises:
        ConfigError: the port that was asked for cannot be used.
    """
    settings: dict[str, Any] = {"directory": directory, "node_monitor_grace": node_monitor_grace}
    plane = ControlPlane(port=PORT if port is None else port, **settings)
    try:
        await plane.__aenter__()
    except OSError as error:
        if port is not None:
            why = os.strerror(error.errno or 0).lower()  # asyncio's own words name the system call
            raise ConfigError(f"port {port} cannot be used: {why}; choose another with --port") from None
        plane = ControlPlane(port=0, **settings)
        await plane.__aenter__()
    try:
        yield plane
    finally:
        await plane.__aexit__(None, None, None)


@asynccontextmanager
async def _node(
    plane: ControlPlane, directory: Path, modules: Path, settings: Settings, engines: Sequence[str], say: Say
) -> AsyncGenerator[Half, None]:
    """A node that may run modules from this disk; it ends its pods when it stops.

    Args:
        engines: are offered beside the provider's own.
    """
    config = NodeConfig(
        kubeconfig=plane.node_kubeconfig(NODE_NAME),
        node_name=NODE_NAME,
        node_ip="127.0.0.1",
        port=0,
        client_ca_file=plane.client_ca_file,
        state_dir=directory / "node",
        serving_csr=False,  # the demo's API server does not verify it, and nobody would approve the request
        drain_on_exit=True,
    )
    place = Place(directory, modules, settings.registries, tuple(engines), settings.own)
    async with half(settings.provider, place, say) as running, Node(running.provider, config):
        yield running


async def _unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What the work gives; None where a signal ends it: a provider may take long to start, or for ever."""
    found: list[T] = []

    async def do() -> None:
        found.append(await work)

    breakable, stopped = Breakable(), asyncio.ensure_future(stop.wait())
    stopped.add_done_callback(lambda _: breakable.break_off())
    try:
        await breakable.finished(do())
    finally:
        stopped.cancel()
    return found[0] if found else None
