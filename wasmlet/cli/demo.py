"""`wasmlet demo`: a control plane, a node and a pod in one command, to see it work before there is a cluster.

Everything is real but the cluster: the pod is applied through an API server on loopback, a wasmtime node runs its
module in a worker process, and the log comes back through the node's HTTPS API. What is started here is ended here.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import orjson
import yaml

from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.cli import providers
from wasmlet.errors import ConfigError, WasmletError
from wasmlet.kube import Client, errors, load_identity, paths
from wasmlet.model.pod import Pod
from wasmlet.node import Node, NodeConfig
from wasmlet.signals import on_stop_signals
from wasmlet.testing import ControlPlane
from wasmlet.testing.lifecycle import GRACE_SECONDS

PROVIDER = "wasmtime"
NODE_NAME = "wasmlet-demo"
PATIENCE_SECONDS = 30.0

PORT = 6443

Say = Callable[[str], None]


class DemoFailed(WasmletError):
    """The pod did not do what the demo shows."""


@attrs.define
class _Shown:
    """What has been shown of the pod so far."""

    phase: str = ""
    waiting: str = ""

    def tell(self, phase: str, pod: Pod, say: Say) -> None:
        """Say what is new."""
        if phase != self.phase:
            self.phase = phase
            say(f"{'pod/' + pod.name:<14} {phase}")
        waiting = _waiting(pod)
        if waiting != self.waiting and not waiting.startswith("ContainerCreating"):
            self.waiting = waiting
            if waiting:
                say(f"{'pod/' + pod.name:<14} {waiting}")


async def demo(
    manifest: Path | None, *, keep: bool, port: int | None, say: Say, registries: RegistryConfig | None = None
) -> None:
    """Show a pod from Pending to Succeeded; with `keep`, stay up until SIGINT, SIGTERM or SIGHUP.

    Raises:
        DemoFailed: the guest failed, or nothing ran within 30 seconds.
        ConfigError: the manifest cannot be read, or this machine cannot run the provider.
    """
    manifest = manifest or _example("hello.yaml")
    body = await asyncio.to_thread(_pod_of, manifest)
    stop = asyncio.Event()
    began = time.monotonic()
    with on_stop_signals(stop.set), tempfile.TemporaryDirectory(prefix="wasmlet-demo-") as directory:
        async with _control_plane(port, Path(directory)) as plane:
            say(f"control plane  {plane.url}")
            async with _node(plane, Path(directory), manifest.absolute().parent, registries or RegistryConfig()):
                say(f"node           {NODE_NAME} is Ready, provider {PROVIDER} ({time.monotonic() - began:.1f} s)")
                if keep:  # before the pod, which may run for as long as it likes
                    _hints(plane.kubeconfig, body["metadata"]["name"], keep, say)
                async with Client(await load_identity(plane.kubeconfig)) as client:
                    await _create_classes(client)
                    await _until(stop, _show(client, body, say))
                if not keep:
                    _hints(plane.kubeconfig, body["metadata"]["name"], keep, say)
                elif not stop.is_set():
                    say("up until Ctrl-C")
                    await stop.wait()
            say("stopped")


def _pod_of(manifest: Path) -> dict[str, Any]:
    """The pod of a manifest, as `kubectl apply` would send it."""
    try:
        body = yaml.safe_load(manifest.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{manifest}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{manifest}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(body, dict) or body.get("kind") != "Pod" or not body.get("metadata", {}).get("name"):
        raise ConfigError(f"{manifest}: expected one Pod with a name")
    metadata = body["metadata"]
    metadata.setdefault("namespace", "default")
    # So that `kubectl apply` can be used on the same file afterwards.
    noted = {"kubectl.kubernetes.io/last-applied-configuration": orjson.dumps(body).decode()}
    metadata["annotations"] = metadata.get("annotations", {}) | noted
    return body


async def _show(client: Client, body: dict[str, Any], say: Say) -> None:
    """Apply the pod and tell what becomes of it."""
    try:
        pod = Pod(await client.create(f"/api/v1/namespaces/{body['metadata']['namespace']}/pods", body))
    except errors.ApiError as error:
        raise DemoFailed(f"the pod is not accepted: {error}") from None
    say(f"applied        pod {pod.key}")
    shown, log = _Shown(), None
    try:
        async with (
            asyncio.timeout(PATIENCE_SECONDS) as patience,
            asyncio.TaskGroup() as group,
            aclosing(_versions(client, pod)) as versions,
        ):
            async for pod in versions:
                if log is None and pod.phase != "Pending":
                    patience.reschedule(None)  # it runs: how long is its own affair
                    shown.tell("Running", pod, say)  # a short one may have ended by the time we look
                    log = group.create_task(_log(client, pod, say))
                if log is not None and pod.finished:
                    await log
                shown.tell(pod.phase, pod, say)
                if pod.finished:
                    break
    except TimeoutError:
        raise DemoFailed(_why(pod, f"nothing runs after {PATIENCE_SECONDS:g} s")) from None
    if pod.phase != "Succeeded":
        raise DemoFailed(_why(pod, f"the pod ended as {pod.phase}"))


async def _versions(client: Client, pod: Pod) -> AsyncGenerator[Pod, None]:
    """The pod now and after each change, until it is deleted."""
    yield pod
    params = {
        "watch": "1",
        "fieldSelector": f"metadata.name={pod.name}",
        "resourceVersion": pod.resource_version,
    }
    path = f"/api/v1/namespaces/{pod.namespace}/pods"
    async with client.stream(path, params) as content:
        async for line in content:
            event = orjson.loads(line)
            yield Pod(event["object"])
            if event["type"] == "DELETED":
                return


async def _log(client: Client, pod: Pod, say: Say) -> None:
    """Print the log as it comes, through the API server and the node."""
    try:
        async with client.stream(f"{paths.pod(pod.key)}/log", {"follow": "true"}) as content:
            async for line in content:
                say("  | " + line.decode("utf-8", "replace").rstrip("\n"))
    except errors.ApiError as error:
        say(f"  the log cannot be read: {error}")


def _waiting(pod: Pod) -> str:
    for status in pod.status.get("containerStatuses") or ():
        if waiting := status.get("state", {}).get("waiting"):
            return f"{waiting.get('reason', '')}: {waiting.get('message', '')}".rstrip(": ")
    return ""


def _why(pod: Pod, what: str) -> str:
    """What went wrong, in the pod's own words."""
    said = [what, _waiting(pod), str(pod.status.get("message", ""))]
    for condition in pod.status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            said.append(str(condition.get("message", "")))
    for status in pod.status.get("containerStatuses") or ():
        if ended := status.get("state", {}).get("terminated"):
            said.append(f"exit code {ended['exitCode']} ({ended.get('reason', '')}) {ended.get('message', '')}".strip())
    return "; ".join(filter(None, said))


def _hints(kubeconfig: Path, pod: str, keep: bool, say: Say) -> None:
    say(f"kubeconfig     {kubeconfig}")
    say("try            (in another terminal)" if keep else "try            (while `wasmlet demo --keep` is up)")
    for command in ("get pods -o wide", f"describe pod {pod}", f"logs {pod}"):
        say(f"  kubectl --kubeconfig {kubeconfig} {command}")


async def _create_classes(client: Client) -> None:
    """Have the RuntimeClasses of `examples/runtimeclasses.yaml`, as a cluster has them."""
    text = await asyncio.to_thread(_example("runtimeclasses.yaml").read_text, "utf-8")
    for body in yaml.safe_load_all(text):
        await client.create("/apis/node.k8s.io/v1/runtimeclasses", body)


def _example(name: str) -> Path:
    """A file of `examples/`: of the checkout, or the copy that the package carries."""
    here = Path(__file__).parents[1]
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
        ConfigError: the port that was asked for cannot be had.
    """
    settings: dict[str, Any] = {"directory": directory, "node_monitor_grace": node_monitor_grace}
    plane = ControlPlane(port=PORT if port is None else port, **settings)
    try:
        await plane.__aenter__()
    except OSError as error:
        if port is not None:
            raise ConfigError(f"port {port} cannot be used: {error.strerror}; choose another with --port") from None
        plane = ControlPlane(port=0, **settings)
        await plane.__aenter__()
    try:
        yield plane
    finally:
        await plane.__aexit__(None, None, None)


@asynccontextmanager
async def _node(
    plane: ControlPlane, directory: Path, modules: Path, registries: RegistryConfig
) -> AsyncGenerator[Node, None]:
    """A wasmtime node that may run modules from this machine's disk, and ends its pods when it stops."""
    kind = providers.load(PROVIDER)
    config = NodeConfig(
        kubeconfig=plane.node_kubeconfig(NODE_NAME),
        node_name=NODE_NAME,
        node_ip="127.0.0.1",
        port=0,
        client_ca_file=plane.client_ca_file,
        state_dir=directory / "node",
        serving_csr=False,  # nobody here verifies it, and nobody would approve it
        drain_on_exit=True,
    )
    settings: Any = kind.Config(allow_local_modules=True, module_dir=modules, **attrs.asdict(registries, recurse=False))
    async with Node(kind(settings), config) as node:
        yield node


async def _until(stop: asyncio.Event, work: Any) -> None:
    """Do the work, or leave it when a signal comes."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        if not task.done():
            task.cancel()
    with suppress(asyncio.CancelledError):
        await task
