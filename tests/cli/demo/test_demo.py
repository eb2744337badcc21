"""`wasmlet demo` and `wasmlet run`, as processes, the way a user meets them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.guests import build
from wasmlet.cli.demo import demo as demo_module
from wasmlet.cli.demo.manifests import objects_of
from wasmlet.cli.demo.showing import Show
from wasmlet.controlplane.faults import Delay
from wasmlet.kube import Client, load_identity

WASMLET = str(Path(sys.executable).parent / "wasmlet")
RELATIVE = os.path.relpath(WASMLET)
EXAMPLES = {os.path.relpath(path) for path in (Path(__file__).parents[3] / "examples").glob("*.yaml")}
PATIENCE = 100.0
"""Seconds; what bounds a whole test is a little more."""
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: mine}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  tolerations: [{{operator: Exists}}]
  containers:
  - name: c
    image: {image}
"""


class Demo:
    """A running `wasmlet`, whose output is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def line(self, pattern: str) -> re.Match[str]:
        """Wait for a line that matches."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while text := (await self.process.stdout.readline()).decode():
                self.lines.append(text)
                if match := re.search(pattern, text):
                    return match
        raise AssertionError(f"no line matches {pattern!r} in {self.lines}")

    async def end(self) -> tuple[int, str]:
        """Exit code and the whole output, once it has ended."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            self.lines.append((await self.process.stdout.read()).decode())
            return await self.process.wait(), "".join(self.lines)


OWN: dict[str, str] = {}
"""Variables that a test sets for the programs that it starts."""


@asynccontextmanager
async def wasmlet(*arguments: str) -> AsyncIterator[Demo]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WASMLET_", "KUBE"))}
    process = await asyncio.create_subprocess_exec(
        WASMLET,
        *arguments,
        env=environment | {"PYTHONUNBUFFERED": "1"} | OWN,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Demo(process)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


@pytest.mark.parametrize("provider", ["wasmtime", "remote"])
async def test_it_shows_the_pod_from_pending_to_succeeded(provider: str) -> None:
    async with wasmlet("demo", "--port", "0", "--provider", provider) as demo:
        code, output = await demo.end()
    assert code == 0, output
    assert re.search(rf"^node +wasmlet-demo is Ready, provider {provider} ", output, re.MULTILINE)
    assert bool(re.search(r"^agent +http://127\S+, a process of its own", output, re.MULTILINE)) == (
        provider == "remote"
    )
    phases = re.findall(r"^pod/hello +(\w+)$", output, re.MULTILINE)
    assert phases == ["Pending", "Running", "Succeeded"]
    assert "  | Hello, from WebAssembly in namespace default\n" in output
    url = re.search(r"^service/web +answers at (http://127\S+/)$", output, re.MULTILINE)
    assert url
    assert re.search(r"^  \| Hello from web-\S+: /$", output, re.MULTILINE)
    # What it needed is gone, and nothing is to be typed that would need it.
    assert "kubeconfig" not in output.lower()
    assert not re.search(r"^  (kubectl|curl) ", output, re.MULTILINE)
    after = output.partition("\nstopped\ntry next\n")[2].splitlines()
    assert [re.sub(r" +#.*", "", line).split()[1:] for line in after][:2] == [
        ["demo", "--keep"],
        ["demo", "examples/retries.yaml"],
    ]
    assert {str(shutil.which(line.split()[0])) for line in after} <= {WASMLET, RELATIVE}


async def test_a_pool_of_nodes_that_are_processes() -> None:
    async with wasmlet("demo", "--port", "0", "--pool") as demo:
        code, output = await demo.end()
    assert code == 0, output
    assert re.search(r"^wnp/edge +2 of 2 nodes ready$", output, re.MULTILINE)
    assert "  | Hello, from WebAssembly in namespace default\n" in output
    assert re.search(r"^service/web +answers at http://127", output, re.MULTILINE)
    assert "Traceback" not in output


async def test_a_pool_is_scaled_changed_and_removed(kubectl: Path) -> None:
    async with wasmlet("demo", "--port", "0", "--pool", "--keep") as demo:
        kubeconfig = (await demo.line(r"^  export KUBECONFIG=(\S+)$"))[1]

        async def kube(*arguments: str) -> str:
            command = ["--kubeconfig", kubeconfig, *arguments]
            process = await asyncio.create_subprocess_exec(kubectl, *command, stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
            assert process.returncode == 0, arguments
            return out.decode()

        await demo.line("up until Ctrl-C")
        await kube("scale", "wnp", "edge", "--replicas=3")
        await kube("wait", "wnp/edge", "--for=jsonpath={.status.readyReplicas}=3", "--timeout=200s")
        assert "edge-2" in await kube("get", "nodes")
        await kube("delete", "wnp", "edge")
        assert "edge-" not in await kube("get", "nodes")
        await kube("apply", "-f", str(Path(__file__).parents[3] / "examples/pool.yaml"))
        await kube("wait", "wnp/edge", "--for=condition=Ready", "--timeout=200s")
        await kube("rollout", "status", "deployment/web", "--timeout=200s")
        demo.process.send_signal(signal.SIGINT)
        code, output = await demo.end()
    assert code == 0, output
    assert "Traceback" not in output
    assert await _processes_with(kubeconfig.rpartition("/")[0]) == []


@pytest.mark.parametrize("at", [r"^operator ", r"^  export KUBECONFIG=", "^up until Ctrl-C"])
async def test_a_pool_leaves_nothing_whenever_it_is_stopped(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setitem(OWN, "TMPDIR", directory)
        async with wasmlet("demo", "--port", "0", "--pool", "--keep") as demo:
            await demo.line(at)
            demo.process.send_signal(signal.SIGINT)
            code, output = await demo.end()
        assert code == 0, output
        assert "Traceback" not in output
        assert await _processes_with(directory) == []
        assert os.listdir(directory) == []


async def test_a_pool_ends_with_a_demo_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setitem(OWN, "TMPDIR", directory)
        async with wasmlet("demo", "--port", "0", "--pool", "--keep") as demo:
            await demo.line("^up until Ctrl-C")
            before = await _processes_with(directory)
            demo.process.kill()
            await demo.process.wait()
        assert len(before) > 5, before  # the operator, two nodes, and what runs their pods
        async with asyncio.timeout(PATIENCE):
            while await _processes_with(directory):  # noqa: ASYNC110 - looked at
                await asyncio.sleep(0.1)


async def test_a_pool_has_the_volumes_of_the_examples() -> None:
    async with wasmlet("demo", "--port", "0", "--pool", "examples/claim.yaml") as demo:
        code, output = await demo.end()
    assert code == 0, output
    assert "  reader | written by another pod\n" in output


async def test_a_pool_that_fails_shows_the_last_lines_of_the_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "import os, sys\nif 'operator' in sys.orig_argv: os.write(2, b'broken here\\n'), os._exit(1)\n"
    (tmp_path / "sitecustomize.py").write_text(broken)
    monkeypatch.setitem(OWN, "PYTHONPATH", str(tmp_path))
    async with wasmlet("demo", "--port", "0", "--pool") as demo:
        code, output = await demo.end()
    assert code == 1
    assert "Error: the operator ended with exit code 1\nthe last lines of the operator:\n  broken here\n" in output
    assert "Traceback" not in output


async def test_a_pool_is_of_the_usual_provider() -> None:
    async with wasmlet("demo", "--pool", "--provider", "remote") as demo:
        code, output = await demo.end()
    assert code == 2
    assert "--pool is of nodes with provider wasmtime, found --provider remote" in output


async def test_it_shows_actors() -> None:
    async with wasmlet("demo", "--port", "0", "--provider", "wascc") as demo:
        code, output = await demo.end()
    assert code == 0, output
    assert re.search(r"^service/counter +answers at (http://127\S+/)$", output, re.MULTILINE)
    assert '  | {"counter": 1}\n' in output
    assert re.search(r"^service/echo +answers at (http://127\S+/)$", output, re.MULTILINE)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP], ids=lambda how: how.name)
async def test_kept_up_it_serves_kubectl_until_a_signal(kubectl: Path, tmp_path: Path, how: signal.Signals) -> None:
    async with wasmlet("demo", "--port", "0", "--keep") as demo:
        plane = int((await demo.line(r"^control plane +https://127.0.0.1:(\d+)$"))[1])
        kubeconfig = (await demo.line(r"^  export KUBECONFIG=(\S+)$"))[1]
        await demo.line("up until Ctrl-C")
        shown = "".join(demo.lines)
        assert shown.count("KUBECONFIG") == 1
        assert "--kubeconfig" not in shown
        url = re.search(r"^service/web +answers at (http://127\S+/)$", shown, re.MULTILINE)
        assert url
        assert f"  curl {url[1]}\n" in shown
        # What it names to try next is there.
        assert set(re.findall(r"^  kubectl apply -f (\S+)", shown, re.MULTILINE)) <= EXAMPLES

        async def kube(*arguments: str) -> str:
            process = await asyncio.create_subprocess_exec(
                kubectl, "--kubeconfig", kubeconfig, *arguments, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            assert process.returncode == 0, arguments
            return out.decode()

        assert "Completed" in await kube("get", "pods")
        assert "I am pod hello on node wasmlet-demo" in await kube("logs", "hello")
        examples = Path(__file__).parents[3] / "examples"
        applied = await kube("apply", "-f", str(examples / "runtimeclasses.yaml"))
        assert "runtimeclass.node.k8s.io/wasmlet configured" in applied
        assert "Warning" not in applied
        assert "Username    admin" in await kube("auth", "whoami")
        assert "pod/hello configured" in await kube("apply", "-f", str(examples / "hello.yaml"))
        await kube("delete", "pod", "hello")
        assert "created" in await kube("apply", "-f", str(examples / "hello.yaml"))
        succeeded = ("--for=jsonpath={.status.phase}=Succeeded", f"--timeout={PATIENCE:g}s")
        await kube("wait", "pod/hello", *succeeded)
        assert (await kube("logs", "hello")).endswith("Bye\n")
        # A pod that says no more of where it runs than its class.
        image = f"file://{examples}/hello/hello.wasm"
        spec = {"runtimeClassName": "wasmlet", "restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "classy"}, "spec": spec}
        manifest = tmp_path / "classy.json"
        manifest.write_text(json.dumps(pod))
        await kube("apply", "-f", str(manifest))
        await kube("wait", "pod/classy", *succeeded)
        assert (await kube("logs", "classy")).endswith("Bye\n")
        told = ["Scheduled", "Pulling", "Pulled", "Created", "Started"]
        for pod_name in ("hello", "classy"):
            reasons: list[str] = []
            async with asyncio.timeout(PATIENCE):
                while reasons[-5:] != told:  # an event may come after the status of what it tells
                    listed = await kube("get", "events", "--field-selector", f"involvedObject.name={pod_name}")
                    reasons = [line.split()[2] for line in listed.splitlines()[1:]]
            described = (await kube("describe", "pod", pod_name)).partition("\nEvents:")[2]
            reasons = [line.split()[1] for line in described.splitlines()[3:]]
            assert reasons[-5:] == told, described
        asked = "jsonpath={.spec.overhead.memory} {.spec.nodeSelector}"
        assert await kube("get", "pod", "classy", "-o", asked) == '3Mi {"handler.wasmlet.dev/wasmlet":"true"}'
        await _shout(plane)
        demo.process.send_signal(how)
        code, output = await demo.end()
    assert code == 0
    assert "Traceback" not in output
    assert await _processes_with(kubeconfig.rpartition("/")[0]) == []


async def test_a_pod_of_an_engine_that_is_not_there_is_told_what_to_install(tmp_path: Path) -> None:
    examples = Path(__file__).parents[3] / "examples"
    (tmp_path / "actor.yaml").write_text(
        (examples / "wascc.yaml").read_text().replace("file://./", f"file://{examples}/")
    )
    async with wasmlet("demo", "--port", "0", str(tmp_path / "actor.yaml")) as demo:
        code, output = await demo.end()
    assert code == 0, output  # the engine is installed, and offered because the pod asks for it
    hidden = "import importlib.metadata as m; real = m.entry_points\n"
    hidden += "m.entry_points = lambda **given: () if given['group'] == 'wasmlet.engines' else real(**given)\n"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    process = await asyncio.create_subprocess_exec(
        WASMLET, "demo", "--port", "0", str(tmp_path / "actor.yaml"),
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE):
        out, _ = await process.communicate()
    assert process.returncode == 1
    assert b"a pod has runtimeClassName wasmlet-wascc, and the engine wascc is not installed" in out
    assert b"try: pip install wasmlet-wascc" in out


async def _shout(port: int) -> None:
    """Send a head that no server reads to its end; the answer is a 400."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(b"GET / HTTP/1.1\r\nHost: " + b"a" * 200_000)
    assert b" 400 " in await reader.readline()
    writer.transport.abort()


async def test_a_taken_port_is_the_end_for_who_asked_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with wasmlet("demo", "--port", str(port)) as demo:
            code, output = await demo.end()
        assert code == 1
        assert f"Error: port {port} cannot be used: address already in use; " in output
        assert output.endswith("choose another with --port\n")
        # Nobody has asked for the usual one.
        monkeypatch.setattr(demo_module, "PORT", port)
        async with demo_module._control_plane(None, tmp_path) as plane:
            assert plane.url != f"https://127.0.0.1:{port}"


@pytest.fixture
def printing(tmp_path: Path, compile_guest: Callable[..., None]) -> Path:
    """The module that prints its greeting and its arguments; one argument alone is its exit code."""
    return Path(shutil.copy(build("print", compile_guest), tmp_path))


async def test_a_guest_that_fails_fails_the_demo(tmp_path: Path, printing: Path) -> None:
    container = "    args: ['7']\n    env: [{name: GREETING, value: on my way}]\n"
    (tmp_path / "pod.yaml").write_text(POD.format(image=f"file://./{printing.name}") + container)
    async with wasmlet("demo", "--port", "0", str(tmp_path / "pod.yaml")) as demo:
        code, output = await demo.end()
    assert code == 1
    assert "  | on my way\n" in output
    assert "Error: the pod ended as Failed; exit code 7 (Error)" in output
    assert "Traceback" not in output


SEVERAL = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {GREETING: hello from a config map}
---
# nothing here
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: wasmlet, labels: {mine: "yes"}}
handler: wasmlet
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Secret
  metadata: {name: word}
  stringData: {WORD: not so secret}
- apiVersion: v1
  kind: Namespace
  metadata: {name: elsewhere}
---
apiVersion: v1
kind: Pod
metadata: {name: first}
spec:
  runtimeClassName: wasmlet
  restartPolicy: Never
  containers:
  - name: c
    image: file://./print.wasm
    envFrom: [{configMapRef: {name: settings}}]
---
apiVersion: v1
kind: Pod
metadata: {name: second, namespace: elsewhere}
spec:
  runtimeClassName: wasmlet
  restartPolicy: Never
  containers:
  - {name: a, image: "file://./print.wasm", env: [{name: GREETING, value: from a}]}
  - {name: b, image: "file://./print.wasm", args: ["3"], env: [{name: GREETING, value: from b}]}
"""


async def test_a_manifest_of_several_documents_and_kinds(printing: Path) -> None:
    manifest = printing.with_name("several.yaml")
    manifest.write_text(SEVERAL)
    async with wasmlet("demo", str(manifest), "--port", "0") as demo:
        code, output = await demo.end()
    assert code == 1, output
    applied = re.findall(r"^applied +(.*)$", output, re.MULTILINE)
    assert applied == [
        "configmap default/settings", "runtimeclass wasmlet", "secret default/word", "namespace elsewhere",
        "pod default/first", "pod elsewhere/second",
    ]  # fmt: skip
    for line in ("  first | hello from a config map", "  second/a | from a", "  second/b | from b", "  second/b | [3]"):
        assert f"{line}\n" in output
    assert re.search(r"^pod/first +Succeeded$", output, re.MULTILINE)
    assert "Error: second: the pod ended as Failed; exit code 0 (Completed); exit code 3 (Error)" in output
    assert "Traceback" not in output


async def test_a_module_is_run_with_its_arguments(printing: Path) -> None:
    module = await asyncio.to_thread(printing.rename, printing.with_name("My Module (1).wasm"))
    arguments = ["-v", "--keep", "$(HOME) $$", "--port", "-h", "--"]
    async with wasmlet("demo", "--port", "0", str(module), *arguments) as demo:
        code, output = await demo.end()
    assert code == 0, output
    assert re.findall(r"^  \| \[(.*)\]$", output, re.MULTILINE) == arguments
    assert re.search(r"^pod/my-module-1 +Succeeded$", output, re.MULTILINE)
    async with wasmlet("demo", "--port", "0", str(module), "--", "7") as demo:
        code, output = await demo.end()
    assert code == 1
    assert "Error: the pod ended as Failed; exit code 7 (Error)" in output


async def test_each_instance_of_a_container_is_shown_once() -> None:
    retries = str(Path(__file__).parents[3] / "examples" / "retries.yaml")
    async with wasmlet("demo", "--port", "0", retries) as demo:
        code, output = await demo.end()
    assert code == 0, output
    tries = re.findall(r"^  \| (try .*)$", output, re.MULTILINE)
    assert tries == ["try 1 of 3 failed", "try 2 of 3 failed", "try 3 of 3 worked"]


async def test_instances_that_ended_before_the_api_heard_of_them_are_shown(tmp_path: Path) -> None:
    examples = Path(__file__).parents[3] / "examples"
    said: asyncio.Queue[str] = asyncio.Queue()
    async with (
        demo_module._control_plane(0, tmp_path) as plane,
        demo_module._node(plane, tmp_path, examples, demo_module.Settings(), (), print) as running,
        Client(await load_identity(plane.kubeconfig)) as client,
        asyncio.timeout(PATIENCE),
        asyncio.TaskGroup() as group,
    ):
        await demo_module._create_classes(client)
        objects = await asyncio.to_thread(objects_of, examples / "retries.yaml")
        with plane.faults.add(Delay(), verb="patch", path="*/pods/retries/status"):
            shown = Show(client, running.earlier, said.put_nowait, said.put_nowait)
            show = group.create_task(shown.run(objects))
            await _event(client, "BackOff")  # two instances have ended, and the third waits
        tries: list[str] = []
        while len(tries) < 2:
            if "  | " in (line := await said.get()):
                tries.append(line)
        show.cancel()
    assert tries == ["  | try 1 of 3 failed", "  | try 2 of 3 failed"]


async def _event(client: Client, reason: str) -> None:
    """Wait for an event of that reason."""
    params = {"watch": "1", "fieldSelector": f"reason={reason}"}
    async with client.stream("/api/v1/namespaces/default/events", params) as events:
        assert await events.readline()


WORKLOADS = """
apiVersion: batch/v1
kind: Job
metadata: {{name: greet}}
spec:
  completions: 2
  template:
    spec:
      runtimeClassName: wasmlet
      restartPolicy: Never
      containers: [{{name: c, image: "file://{hello}"}}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: peers}}
spec:
  serviceName: peers
  selector: {{matchLabels: {{app: peers}}}}
  template:
    metadata: {{labels: {{app: peers}}}}
    spec:
      runtimeClassName: wasmlet
      terminationGracePeriodSeconds: 1
      containers: [{{name: c, image: "file://{web}", ports: [{{containerPort: 8080}}]}}]
"""


async def test_a_job_ends_and_a_stateful_set_is_there(tmp_path: Path) -> None:
    examples = Path(__file__).parents[3] / "examples"
    files = {"hello": examples / "hello" / "hello.wasm", "web": examples / "web" / "web.wasm"}
    (tmp_path / "workloads.yaml").write_text(WORKLOADS.format(**files))
    async with wasmlet("demo", "--port", "0", str(tmp_path / "workloads.yaml")) as demo:
        code, output = await demo.end()
    assert code == 0, output
    assert "job/greet      2 of 2 pods have succeeded" in output
    assert "statefulset/peers 1 of 1 pods are available" in output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/nowhere.wasm"], "/nowhere.wasm: there is no such file"),
        (["/nowhere.yaml"], "/nowhere.yaml: there is no such file"),
        (["examples"], "examples: expected a manifest or a module, found a directory"),
        (["examples/hello/hello.wasm", "\udcff"], "expected a name and arguments in UTF-8"),
        (["README.md", "a", "b"], "is a manifest, which takes no arguments; found 'a b'"),
    ],
)
async def test_a_file_that_is_no_module_and_no_manifest(arguments: list[str], expected: str) -> None:
    async with wasmlet("demo", "--port", "0", *arguments) as demo:
        code, output = await demo.end()
    assert code == 1
    assert expected in output
    assert "Traceback" not in output


@pytest.mark.parametrize(("content", "found"), [(b"", "an empty file"), (b"(module)", "b'(mod'")])
async def test_a_file_with_the_name_of_a_module_that_is_none(tmp_path: Path, content: bytes, found: str) -> None:
    """It is said before anything is started."""
    (tmp_path / "app.wasm").write_bytes(content)
    async with wasmlet("demo", "--port", "0", str(tmp_path / "app.wasm")) as demo:
        code, output = await demo.end()
    assert code == 1
    assert f"app.wasm: expected a WebAssembly module, which begins with b'\\x00asm', found {found}" in output
    assert "control plane" not in output


async def test_a_pod_that_never_runs_fails_the_demo_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(POD.format(image="file://./nowhere.wasm"))
    async with wasmlet("demo", "--port", "0", str(tmp_path / "pod.yaml")) as demo:
        await demo.line(r"^pod/mine +ErrImagePull: .*nowhere\.wasm")
        code, output = await demo.end()
    assert code == 1
    assert "Error: nothing runs after 30 s" in output
    assert "nowhere.wasm" in output.rpartition("Error:")[2]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("", ""), "CreateContainerError: module file://./empty.wasm: the module has no _start function"),
        (
            ("  containers:", "  initContainers: [{name: i, image: file://./empty.wasm}]\n  containers:"),
            "has no _start",
        ),
        (("file://./empty.wasm", "file://%%"), "InvalidImageName"),
        (("    image:", "    envFrom: [{configMapRef: {name: none}}]\n    image:"), 'configmap "none" not found'),
        (("tolerations: [{operator: Exists}]", "tolerations: []"), "untolerated taint"),
    ],
    ids=["a library", "a library in an init container", "an image's name", "a config map", "a taint"],
)
async def test_what_no_waiting_mends_is_said_sooner(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    (tmp_path / "empty.wasm").write_bytes(b"\0asm\1\0\0\0")
    (tmp_path / "pod.yaml").write_text(POD.format(image="file://./empty.wasm").replace(*change))
    async with wasmlet("demo", "--port", "0", str(tmp_path / "pod.yaml")) as demo:
        code, output = await demo.end()
    assert code == 1
    assert expected in output.partition("\nError: nothing runs; ")[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "there is no such file"),
        ("{", "expected YAML or JSON"),
        ("kind: Deployment", "document 1: expected an object with apiVersion, kind and metadata"),
        ("apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: x}", "has no DaemonSet of apps/v1"),
        ("apiVersion: v1\nkind: Pot\nmetadata: {name: x}", "has no Pot of v1; did you mean 'Pod'?"),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}",
            "expected at least one of Pod, Deployment, ReplicaSet, StatefulSet, Job, found 1 other",
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}", "expected metadata.name of the Pod"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, annotations: text}", "annotations: expected an object"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: {a: !!binary eA==}}", "expected what JSON can hold"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: &a {b: *a}", "expected YAML or JSON"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: {1: x}}", "the pod x is not accepted"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: 5}", 'metadata.name: expected text, found 5; write it as "5"'),
        ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: [a]}", "metadata.generateName: expected text, found ["),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: 7}", "metadata.namespace: expected text, found 7"),
        ('apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: ".."}', "at both ends, found '..'"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: a/b}", "at both ends, found 'a/b'"),
        ("[" * 100_000, "expected YAML or JSON"),
        ("# nothing\n---\n", "expected at least one of Pod, Deployment, ReplicaSet, StatefulSet, Job, found 0 other"),
        ("a: b\n---\n- 1", "document 1: expected an object"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {}", "the pod x is not accepted"),
    ],
)
async def test_a_manifest_that_cannot_be(tmp_path: Path, text: str | None, expected: str) -> None:
    manifest = tmp_path / "pod.yaml"
    if text is not None:
        manifest.write_text(text)
    async with wasmlet("demo", "--port", "0", str(manifest)) as demo:
        code, output = await demo.end()
    assert code == 1
    assert expected in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "expected", "status"),
    [
        (
            ["run", "--provider", "wasmtime", "--kubeconfig", "/nowhere"],
            "kubeconfig /nowhere: there is no such file",
            1,
        ),
        (["run", "--provider", "nothing"], "there is no provider 'nothing'", 1),
        (
            ["run", "--provider", "wasmtime", "--kubeconfig", "/etc/hostname"],
            "kubeconfig /etc/hostname cannot be used",
            1,
        ),
        (["run", "--max-pod", "3"], "--max-pods", 2),
        (["run", "--provider", "wasmtime", "--node-name", "A_B"], "--node-name", 1),
        (["runn"], "runn", 2),
        (["run", "--config", "/nowhere.toml"], "--config /nowhere.toml", 1),
    ],
)
async def test_what_is_wrong_on_the_command_line_is_said(
    arguments: list[str], expected: str, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(OWN, "WASMLET_STATE_DIR", str(tmp_path / "state"))  # the usual one is another test's, maybe
    async with wasmlet(*arguments) as process:
        code, output = await process.end()
    assert code == status, output
    assert expected in output
    assert "Traceback" not in output


async def test_help_of_every_command() -> None:
    for arguments in ([], ["run"], ["demo"], ["providers"]):
        async with wasmlet(*arguments, "--help") as process:
            code, output = await process.end()
        assert code == 0
        assert output.startswith("Usage: wasmlet")
    assert "--allow-local-modules" in await _help_of_run()


async def _help_of_run() -> str:
    async with wasmlet("run", "--provider", "wasmtime", "--help") as process:
        return (await process.end())[1]


async def _processes_with(text: str) -> list[str]:
    """Command lines of processes that name this path."""

    def read() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if text in line:
                found.append(line)
        return found

    return await asyncio.to_thread(read)
