"""Each manifest in `examples/` does what its comment says, applied with kubectl."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import attrs
import pytest
import yaml
from aiohttp import ClientSession
from wasmlet_wasmtime import WasmtimeProvider

import wasmlet
from tests.artifacts import registries
from tests.artifacts.conftest import docker_registry
from tests.artifacts.registries import PASSWORD, USER
from tests.shared.machine import may_limit
from wasmlet.artifacts import push
from wasmlet.artifacts.credentials import auths_of
from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.artifacts.references import parse
from wasmlet.clock import SystemClock
from wasmlet.testing import ControlPlane

__all__ = ["docker_registry"]

EXAMPLES = Path(__file__).parents[2] / "examples"
MANIFESTS = sorted((*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("http/**/*.yaml")))
SECONDS = 60.0
CLASSES = "runtimeclasses.yaml"


@attrs.define
class Kubectl:
    """kubectl as somebody uses it who follows a comment, from the top of the checkout."""

    program: Path
    plane: ControlPlane

    async def __call__(self, *arguments: str, code: int | None = 0, stdin: str | None = None) -> str:
        """Both streams of a command that ends with that exit code."""
        process = await asyncio.create_subprocess_exec(
            self.program, "--kubeconfig", self.plane.kubeconfig, *arguments, cwd=EXAMPLES.parent,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(SECONDS):
            out, _ = await process.communicate((stdin or "").encode())
        assert code is None or process.returncode == code, f"kubectl {' '.join(arguments)}: {out.decode()}"
        return out.decode()

    async def get(self, pod: str, path: str) -> str:
        return await self("get", "pod", pod, "-o", f"jsonpath={{{path}}}")

    async def until(self, pod: str, path: str, value: str) -> None:
        """Wait until a field of a pod has a value."""
        await self("wait", f"pod/{pod}", f"--for=jsonpath={{{path}}}={value}", f"--timeout={SECONDS:g}s")

    async def phase(self, pod: str, phase: str) -> None:
        await self.until(pod, ".status.phase", phase)

    async def logged(self, pod: str, text: str, first: Sequence[str] = ()) -> str:
        """What `kubectl logs -f` of a pod shows, once that runs, up to where it has the text in it.

        Args:
            first: a command for kubectl, once there is a first line.
        """
        await self.phase(pod, "Running")
        process = await asyncio.create_subprocess_exec(
            self.program, "--kubeconfig", self.plane.kubeconfig, "logs", "-f", pod,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        seen = ""
        try:
            async with asyncio.timeout(SECONDS):
                while text not in seen and (line := await process.stdout.readline()):
                    if not seen and first:
                        await self(*first)
                    seen += line.decode()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        assert text in seen, seen
        return seen


@pytest.fixture
async def insecure() -> tuple[str, ...]:
    """Registries that speak plain HTTP; a test that has one takes the place of this."""
    return ()


@pytest.fixture
async def kube(
    control_plane: ControlPlane, kubectl: Path, tmp_path: Path, insecure: tuple[str, ...]
) -> AsyncIterator[Kubectl]:
    """A cluster with one wasmtime node, as `wasmlet demo --keep` has one; restarts wait a second at most."""
    settings = WasmtimeProvider.Config(
        engine=("wascc",),
        allow_local_modules=True,
        module_dir=EXAMPLES,
        network="address",
        allow_storage_class=("demo",),
        shim_idle_exit=1.0,
        max_container_restart_period=1.0,
        insecure_registries=insecure,
    )
    config = wasmlet.NodeConfig(
        kubeconfig=control_plane.node_kubeconfig("n1"),
        node_name="n1",
        node_ip="127.0.0.1",
        port=0,
        client_ca_file=control_plane.client_ca_file,
        state_dir=tmp_path / "state",
        serving_csr=False,
        drain_on_exit=True,
        drain_seconds=1.0,
    )
    kube = Kubectl(kubectl, control_plane)
    await kube("apply", "-f", f"examples/{CLASSES}")
    async with wasmlet.Node(WasmtimeProvider(settings), config):
        yield kube


async def test_runtime_classes(kube: Kubectl) -> None:
    names = (await kube("get", "runtimeclasses", "-o", "name")).split()
    assert {"wasmlet", "wasmlet-dense", "wasmlet-wasmer"} <= {name.partition("/")[2] for name in names}
    overheads = json.loads(await kube("get", "runtimeclasses", "-o", "json"))["items"]
    # A sleeping guest takes memory and no CPU; with some for each pod, CPU would bound how many pods a node has.
    assert all(set(one["overhead"]["podFixed"]) == {"memory"} for one in overheads)
    container = {"name": "c", "image": "file://./box/box.wasm", "args": ["say", "dense"]}
    spec = {"runtimeClassName": "wasmlet-dense", "restartPolicy": "Never", "containers": [container]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    await kube("apply", "-f", "-", stdin=json.dumps(body))
    await kube.phase("p", "Succeeded")
    assert await kube("logs", "p") == "dense\n"


async def test_hello(kube: Kubectl) -> None:
    await kube("apply", "-f", "examples/hello.yaml")
    await kube.phase("hello", "Succeeded")
    lines = (await kube("logs", "-f", "hello")).splitlines()
    assert lines[0] == "Hello, from WebAssembly in namespace default"
    assert lines[2:] == ["line 1 of 3", "line 2 of 3", "line 3 of 3", "Bye"]


async def test_config(kube: Kubectl) -> None:
    await kube("apply", "-f", "examples/config.yaml")
    seen = await kube.logged("config", "colour=blue")
    assert seen == "GREETING=Hello\nPASSWORD=not-so-secret\npassword\ncolour=blue\n"
    await kube("patch", "configmap", "settings", "-p", '{"data":{"app.conf":"colour=green\\n"}}')
    await kube.logged("config", "colour=green")
    assert await kube.get("config", ".status.containerStatuses[0].restartCount") == "0"


async def test_files(kube: Kubectl) -> None:
    await kube("apply", "-f", "examples/files.yaml")
    await kube.phase("files", "Succeeded")
    assert (await kube("logs", "files")).splitlines() == [
        "cpu labels motto", 'team="blue"', "Small is beautiful", "written in memory",
    ]  # fmt: skip


async def test_claim(kube: Kubectl) -> None:
    (path,) = {
        Path(body["spec"]["hostPath"]["path"])
        for body in yaml.safe_load_all((EXAMPLES / "claim.yaml").read_text())
        if body["kind"] == "PersistentVolume"
    }
    await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)  # left by somebody who has tried it
    try:
        await kube("apply", "-f", "examples/claim.yaml")
        await kube.phase("reader", "Succeeded")
        assert await kube("logs", "reader") == "written by another pod\n"
        await kube.phase("writer", "Succeeded")
        assert await kube("logs", "writer") == "ok\n"
        rows = [line.split() for line in (await kube("get", "pv,pvc", "--no-headers")).splitlines() if line]
        assert [rows[0][at] for at in (0, 4, 5)] == ["persistentvolume/notes", "Bound", "default/notes"]
        assert rows[1][:3] == ["persistentvolumeclaim/notes", "Bound", "notes"]
        await kube("delete", "-f", "examples/claim.yaml")
        assert (path / "note").read_text() == "written by another pod\n"
    finally:
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)


async def test_retries(kube: Kubectl) -> None:
    await kube("apply", "-f", "examples/retries.yaml")
    await kube.phase("retries", "Succeeded")
    assert await kube.get("retries", ".status.containerStatuses[0].restartCount") == "2"
    assert await kube("logs", "retries", "--previous") == "try 2 of 3 failed\n"
    assert await kube("logs", "retries") == "try 3 of 3 worked\n"
    assert (
        await kube.get("retries", ".status.containerStatuses[0].lastState.terminated.message") == "try 2 of 3 failed\n"
    )


async def test_periodic(kube: Kubectl) -> None:
    await kube("apply", "-f", "examples/periodic.yaml")
    seen = await kube.logged("periodic", "tidied up", first=("delete", "pod", "periodic", "--wait=false"))
    lines = seen.splitlines()
    assert (set(lines[:-1]), lines[-1]) == ({"still here"}, "tidied up")
    await kube("wait", "pod/periodic", "--for=delete", f"--timeout={SECONDS:g}s")


async def test_sidecar(kube: Kubectl) -> None:
    await kube("apply", "-f", "examples/sidecar.yaml")
    await kube.phase("sidecar", "Succeeded")
    assert await kube("logs", "sidecar", "-c", "prepare") == "prepared\n"
    lines = (await kube("logs", "sidecar", "-c", "follower")).splitlines()
    assert (lines[0], lines[-4:]) == ("begin", ["begin", "one", "two", "three"])
    assert "Completed" in await kube("get", "pod", "sidecar")


async def test_probes(kube: Kubectl) -> None:
    await kube("apply", "-f", "examples/probes.yaml")
    ready, restarts = ".status.containerStatuses[0].ready", ".status.containerStatuses[0].restartCount"
    await kube.until("probes", ready, "true")
    await kube("exec", "probes", "--", "box", "write", "/state/busy", "yes")
    await kube.until("probes", ready, "false")
    assert await kube.get("probes", restarts) == "0"
    await kube("exec", "probes", "--", "box", "write", "/state/sick", "yes")
    await kube.until("probes", restarts, "1")
    await kube.until("probes", ready, "true")
    described = await kube("describe", "pod", "probes")
    for reason in ("Unhealthy", "Killing", "Started"):
        assert reason in described


async def test_limits(kube: Kubectl) -> None:
    await kube("apply", "-f", "examples/limits.yaml")
    await kube.phase("too-much-memory", "Failed")
    reason = await kube.get("too-much-memory", ".status.containerStatuses[0].state.terminated.reason")
    if may_limit("memory"):
        assert reason == "OOMKilled"
    else:
        assert reason == "Error"
        assert re.fullmatch(r"no memory after \d+ MiB\n", await kube("logs", "too-much-memory"))
    await kube.phase("too-much-disk", "Failed")
    described = await kube("describe", "pod", "too-much-disk")
    assert "Evicted" in described
    assert "exceeds the total limit of containers 2Mi" in described


@pytest.fixture
async def address(docker_registry: Path, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A registry in the place of registry.example.com; for private-image one that wants a password."""
    directory = tmp_path / "registry"
    wanted = registries.basic(directory) if request.node.name == "test_private_image" else {}
    async with registries.registry(docker_registry, directory, **wanted) as address:
        yield address


async def pushed(module: Path, image: str) -> None:
    """What `wasmlet push` does."""
    loaded, reference = await asyncio.to_thread(push.load, module), parse(image)
    config = RegistryConfig(insecure_registries=(reference.registry,))
    login = auths_of({reference.registry: {"username": USER, "password": PASSWORD}})
    artifact = push.artifact(loaded, {}, "v0")
    await push.Pusher(keychain=login, config=config, clock=SystemClock()).push(loaded, artifact, reference)


class TestRegistries:
    @pytest.fixture
    async def insecure(self, address: str) -> tuple[str, ...]:
        return (address,)

    async def test_debug(self, kube: Kubectl, address: str) -> None:
        await pushed(EXAMPLES / "box" / "box.wasm", f"{address}/tools/box:v1")
        await kube("apply", "-f", "examples/debug.yaml")
        await kube.phase("debug", "Running")
        await kube(
            "debug", "debug", f"--image={address}/tools/box:v1", "--container=look",
            "--custom=examples/debug-container.json", "--",
            "box", "ls", "/data", "then", "cat", "/data/secret-plan",
        )  # fmt: skip
        await kube.until("debug", ".status.ephemeralContainerStatuses[0].state.terminated.exitCode", "0")
        assert await kube("logs", "debug", "-c", "look") == "secret-plan\nworld peace\n"
        assert await kube("exec", "debug", "-c", "app", "--", "box", "cat", "/data/secret-plan") == "world peace\n"

    async def test_private_image(self, kube: Kubectl, address: str, tmp_path: Path) -> None:
        await pushed(EXAMPLES / "hello" / "hello.wasm", f"{address}/team/hello:v1")
        manifest = tmp_path / "private-image.yaml"
        manifest.write_text((EXAMPLES / manifest.name).read_text().replace("registry.example.com", address))
        await kube("apply", "-f", str(manifest))
        waiting = ".status.containerStatuses[0].state.waiting.reason"
        await kube.until("private-image", waiting, "ErrImagePull")
        await kube("delete", "-f", str(manifest))
        await kube(
            "create", "secret", "docker-registry", "team", f"--docker-server={address}",
            f"--docker-username={USER}", f"--docker-password={PASSWORD}",
        )  # fmt: skip
        await kube("apply", "-f", str(manifest))
        await kube.phase("private-image", "Succeeded")
        assert (await kube("logs", "private-image")).startswith("Hello, from a registry\n")
        described = await kube("describe", "pod", "private-image")
        for reason in ("Pulling", "Pulled", "Created", "Started"):
            assert reason in described


def test_every_manifest_has_a_test() -> None:
    here = Path(__file__).read_text() + Path(__file__).with_name("test_web.py").read_text()
    for manifest in MANIFESTS:
        assert manifest.name in here, f"{manifest.name}: nothing shows that it does what its comment says"


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_are_explained_and_restricted(manifest: Path) -> None:
    """Each begins with a comment, and its pods ask for what Pod Security "restricted" wants of every pod."""
    text = manifest.read_text()
    assert text.startswith("# ")
    assert f"kubectl apply -f examples/{manifest.relative_to(EXAMPLES)}" in text
    for body in yaml.safe_load_all(text):
        if body["kind"] not in ("Pod", "Deployment"):
            continue
        spec = body["spec"]["template"]["spec"] if body["kind"] == "Deployment" else body["spec"]
        assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip


async def test_an_actor_counts(kube: Kubectl) -> None:
    await kube("apply", "-f", "examples/wascc.yaml")
    await kube("wait", "pod/counter", "--for=condition=Ready", f"--timeout={SECONDS:g}s")
    ip = await kube.get("counter", ".status.podIP")
    async with ClientSession() as client:
        for count in (1, 2):
            async with client.get(f"http://{ip}:8080/any/path") as answer:
                assert await answer.json() == {"counter": count}
        await kube.phase("echo", "Running")
        async with client.post(f"http://{await kube.get('echo', '.status.podIP')}:8080/", data=b"and back") as answer:
            assert await answer.read() == b"and back"


async def test_a_pool(control_plane: ControlPlane, kubectl: Path) -> None:
    """What `wasmlet operator` makes of it is in tests/operator."""
    kube = Kubectl(kubectl, control_plane)
    await kube("apply", "--server-side", "-f", "charts/wasmlet-operator/crds")
    await kube("apply", "-f", "examples/pool.yaml")
    (pool,) = json.loads(await kube("get", "wnp", "-o", "json"))["items"]
    assert pool["spec"]["provider"] == "wasmtime"
