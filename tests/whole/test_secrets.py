"""No secret, token, password or variable of a pod is said by a node, whatever goes wrong in it.

Every layer raises with all of them at hand; then they are looked for in its log, events, statuses, metrics and files.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import os
import pty
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import wasmlet
from tests.conformance.machine import administrator
from tests.guests import build
from tests.node.cluster import NODE, Cluster
from tests.whole.broken_layers import LAYERS, TIMES
from wasmlet.failures import MOST_TRACEBACK
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane

ROOT = Path(__file__).parents[2]
DEFAULT = "/api/v1/namespaces/default"
TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{10}")
"""The head of a service account's token."""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with ControlPlane() as plane, Client(await load_identity(plane.kubeconfig)) as admin:
        yield Cluster(plane, admin, tmp_path, seconds=60)


@pytest.fixture
def marker() -> str:
    return f"marker{uuid.uuid4().hex}"


def forms(secret: str) -> list[str]:
    """How it may be written: as it is, and in base64."""
    return [secret, base64.b64encode(secret.encode()).decode().rstrip("=")[:-2]]


async def secrets(cluster: Cluster, marker: str) -> None:
    """A secret and a registry's password with the marker in them."""
    login = {"auths": {"127.0.0.1:1": {"username": "me", "password": marker}}}
    given: list[tuple[str, str, dict[str, str]]] = [
        ("secret", "Opaque", {"password": marker}),
        ("registry", "kubernetes.io/dockerconfigjson", {".dockerconfigjson": json.dumps(login)}),
        ("odd", "kubernetes.io/dockerconfigjson", {".dockerconfigjson": f'{{"auths": "{marker}'}),
    ]
    for name, kind, data in given:
        await cluster.admin.create(f"{DEFAULT}/secrets", {"metadata": {"name": name}, "type": kind, "stringData": data})


def spec(marker: str, image: str, *args: str) -> dict[str, Any]:
    """A pod with the marker in its variables, its volumes and its registry's password, and with a token."""
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}
    return {
        "terminationGracePeriodSeconds": 1,
        "imagePullSecrets": [{"name": "registry"}, {"name": "odd"}],
        "volumes": [
            {"name": "secret", "secret": {"secretName": "secret"}},
            {"name": "token", "projected": {"sources": [token]}},
        ],
        "containers": [
            {
                "name": "c",
                "image": image,
                "args": list(args),
                "env": [
                    {"name": "PLAIN", "value": marker},
                    {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "password"}}},
                ],
                "envFrom": [{"secretRef": {"name": "secret"}}],
                "volumeMounts": [
                    {"name": "secret", "mountPath": "/secret"},
                    {"name": "token", "mountPath": "/token"},
                ],
                "lifecycle": {"postStart": {"exec": {"command": ["driver", "print", "hello"]}}},
            }
        ],
    }


@asynccontextmanager
async def process(log: Path, terminal: bool, *command: str, **environment: str) -> AsyncIterator[None]:
    """A process whose output goes to the file, through a terminal or not; ended as Ctrl-C does."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])} | environment
    with log.open("wb") as file:
        ours, its = pty.openpty() if terminal else (-1, file.fileno())
        started = await asyncio.create_subprocess_exec(
            sys.executable, *command, env=env, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=its, stderr=its
        )
        if terminal:
            os.close(its)
        reading = asyncio.create_task(asyncio.to_thread(copy, ours, log)) if terminal else None
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                started.terminate()
            await started.wait()
            if reading is not None:
                await reading
                os.close(ours)


def copy(terminal: int, log: Path) -> None:
    with log.open("ab") as file, suppress(OSError):  # which is how a terminal ends
        while data := os.read(terminal, 65536):
            file.write(data)
            file.flush()


def written(log: Path, text: bytes, times: int) -> None:
    """Return when the text is in the file so many times."""
    until = time.monotonic() + 30
    while log.read_bytes().count(text) < times:
        assert time.monotonic() < until
        time.sleep(0.1)


async def ask(cluster: Cluster, path: str) -> tuple[int, str]:
    """What the node's own API answers to an administrator."""
    node = await cluster.admin.get(f"/api/v1/nodes/{NODE}")
    url = f"https://127.0.0.1:{node['status']['daemonEndpoints']['kubeletEndpoint']['Port']}/{path}"
    rights = await asyncio.to_thread(administrator, cluster.plane.kubeconfig, cluster.directory)
    async with aiohttp.ClientSession() as session, session.get(url, ssl=rights) as answer:
        return answer.status, await answer.text()


async def said(cluster: Cluster) -> dict[str, str]:
    """What the API and the node tell of the node and its pods, but for the pods' own manifests."""
    lists = {kind: await cluster.admin.get(f"{DEFAULT}/{kind}") for kind in ("events", "pods")}
    statuses = [(pod["status"], pod["metadata"].get("annotations")) for pod in lists["pods"]["items"]]
    told = {
        "events": json.dumps(lists["events"]),
        "statuses": json.dumps(statuses),
        "node": json.dumps(await cluster.admin.get(f"/api/v1/nodes/{NODE}")),
    }
    for path in ("metrics", "metrics/resource", "metrics/probes", "stats/summary", "configz", "healthz?verbose"):
        status, told[path] = await ask(cluster, path)
        assert status == 200, path
    return told


async def token(cluster: Cluster) -> str:
    """A token of the pods' service account."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    made = await cluster.admin.create(f"{DEFAULT}/serviceaccounts/default/token", body)
    return str(made["status"]["token"])


async def kube(cluster: Cluster, kubectl: Path, *arguments: str) -> tuple[int, str]:
    """The exit code of kubectl, and what it says."""
    command = [kubectl, f"--kubeconfig={cluster.plane.kubeconfig}", *arguments]
    done = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(done.communicate(), 60)
    return done.returncode or 0, out.decode(errors="replace")


def files(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of the node that is not one of a pod's own volumes."""
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink() and "volumes" not in path.relative_to(directory).parts:
            yield str(path.relative_to(directory)), path.read_bytes()


def runs_again(pod: wasmlet.Pod) -> bool:
    """Whether its container runs, and has since its hook failed, which ended the first one."""
    return any(one["restartCount"] and "running" in one["state"] for one in pod.status.get("containerStatuses", ()))


@pytest.mark.parametrize("terminal", [False, True], ids=["json", "terminal"])
async def test_no_layer_says_them(
    cluster: Cluster, marker: str, kubectl: Path, compile_guest: Callable[..., None], terminal: bool
) -> None:
    driver = await asyncio.to_thread(build, "driver", compile_guest)
    log, raised, state = (cluster.directory / name for name in ("node.log", "raised", NODE))
    raised.touch()
    await secrets(cluster, marker)
    options = (
        f"--kubeconfig={cluster.plane.node_kubeconfig(NODE)}", f"--node-name={NODE}", "--node-ip=127.0.0.1",
        "--port=0", f"--client-ca-file={cluster.plane.client_ca_file}", "--no-serving-csr", f"--state-dir={state}",
        f"--module-dir={driver.parent}", "--allow-local-modules", "--drain-on-exit", "--log-level=debug",
    )  # fmt: skip
    path = str(ROOT / "tests/whole/broken_layers.py")
    async with process(log, terminal, path, *options, MARKER=marker, RAISED=str(raised)):
        await cluster.create(**spec(marker, f"file://{driver}", "print", "hello", "sleep", "1000"))
        await cluster.create("pull", **spec(marker, "127.0.0.1:1/none:1"))
        await cluster.until(runs_again)
        await cluster.until(lambda pod: "ErrImagePull" in json.dumps(pod.status), "pull")
        labels = {"metadata": {"labels": {"a": "b"}}}
        await cluster.admin.patch(f"{DEFAULT}/pods/p", labels, "application/merge-patch+json")
        for _ in range(TIMES):
            answers = [
                await kube(cluster, kubectl, "exec", "p", "--", "driver", "print", "hello"),
                await kube(cluster, kubectl, "logs", "p"),
                await ask(cluster, "stats/summary"),
            ]
            assert [code for code, _ in answers] == [1, 1, 500]
            for _, answer in answers:
                assert marker not in answer
        told = await said(cluster)
        told |= {f"{name}, meanwhile": content.decode(errors="replace") for name, content in files(state)}
        await cluster.delete()
        await cluster.until_gone()
    told["events at the end"] = json.dumps(await cluster.admin.get(f"{DEFAULT}/events"))
    told["log"] = log.read_text(errors="replace")
    told |= {name: content.decode(errors="replace") for name, content in files(state)}
    # Each layer was there, and raised.
    reached = raised.read_text().split()
    assert {layer: reached.count(layer) for layer in LAYERS} == dict.fromkeys(LAYERS, TIMES)
    assert told["log"].count("Traceback (most recent call last)") >= 5
    assert len(told["log"]) < 400_000
    assert TOKEN.match(await token(cluster))
    for where, text in told.items():
        assert not [form for form in forms(marker) if form in text], where
        assert not TOKEN.search(text), where


PROGRAM = """
import asyncio, os, sys
from pathlib import Path
import wasmlet

class Leaky(wasmlet.Provider):
    name = "leaky"
    poll_seconds = 0.1

    async def create_pod(self, pod, inputs):
        variables = [pod.raw, inputs.secrets, inputs.tokens]
        if pod.name == "text":
            raise RuntimeError(f"cannot run {pod!r} with {inputs!r}")
        await asyncio.create_subprocess_exec(*pod.containers[0].command)  # as without a command in the tutorial's

    async def delete_pod(self, key, grace_seconds):
        raise wasmlet.NotFound("never")

    async def pod_status(self, key):
        raise wasmlet.NotFound("never")

    async def list_pods(self):
        return []

config = wasmlet.NodeConfig(kubeconfig=Path(sys.argv[2]), node_name="n1", node_ip="127.0.0.1", port=0,
                            client_ca_file=Path(sys.argv[3]), state_dir=Path(sys.argv[4]), serving_csr=False)
if sys.argv[1] == "run":
    wasmlet.run(Leaky(), config)
else:
    from wasmlet.node import run
    asyncio.run(run(wasmlet.Node(Leaky(), config)))
"""


@pytest.mark.parametrize("terminal", [False, True], ids=["file", "terminal"])
@pytest.mark.parametrize("how", ["run", "embedded"])
async def test_a_provider_that_raises_is_logged_without_its_variables(
    cluster: Cluster, marker: str, how: str, terminal: bool
) -> None:
    """Also where the program has set up nothing, and structlog would show variables, with `rich`."""
    log, program = cluster.directory / "node.log", cluster.directory / "program.py"
    program.write_text(PROGRAM)
    await secrets(cluster, marker)
    files = map(str, (cluster.plane.node_kubeconfig(NODE), cluster.plane.client_ca_file, cluster.directory / NODE))
    async with process(log, terminal, str(program), how, *files, PYTHONUNBUFFERED="1"):
        for name in ("command", "text"):
            await cluster.create(name, **spec(marker, "none"))
        for name in ("command", "text"):
            await cluster.until(lambda pod: "CreateContainerError" in json.dumps(pod.status), name)
        await asyncio.to_thread(written, log, b"a step failed", 8)  # four tries each, with growing pauses
    text = log.read_text(errors="replace")
    pods = (await cluster.admin.get(f"{DEFAULT}/pods"))["items"]
    shown = json.dumps([[pod["status"] for pod in pods], await cluster.admin.get(f"{DEFAULT}/events")])
    assert marker not in text
    assert marker not in shown
    assert forms(marker)[1] not in text + shown
    assert not TOKEN.search(text + shown)
    assert "program.py" in text  # where it was raised
    assert text.count("Traceback (most recent call last)") == 2
    assert len(text) < 20_000


def test_no_traceback_is_left_to_the_program_s_settings_of_structlog() -> None:
    """With `exc_info` structlog logs every variable, unless it was told not to."""
    found = []
    for path in [*ROOT.glob("wasmlet/**/*.py"), *ROOT.glob("providers/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                named = {keyword.arg for keyword in node.keywords}
                if "exc_info" in named or (node.func.attr == "exception" and ast.unparse(node.func.value) == "log"):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_a_traceback_is_bounded() -> None:
    from wasmlet.failures import MOST_TEXT, described

    def deep(number: int) -> None:
        if number:
            deep(number - 1)
        raise ValueError("x" * 100_000)

    try:
        try:
            deep(200)
        except ValueError as error:
            raise ExceptionGroup("many", [error, *(ValueError(str(i)) for i in range(1000))]) from error
    except ExceptionGroup as error:
        fields = described(error)
    assert len(fields["error"]) <= MOST_TEXT + 100
    assert len(fields["exception"]) <= MOST_TRACEBACK + 100
    assert "ExceptionGroup" in fields["exception"]
