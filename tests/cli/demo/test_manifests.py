"""`wasmlet demo FILE`: several documents and kinds, a module with its arguments, and what is shown of them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import wasmtime

from tests.cli.demo.harness import PATIENCE, POD, wasmlet
from wasmlet.cli.demo import demo as demo_module
from wasmlet.cli.demo.manifests import objects_of
from wasmlet.cli.demo.showing import Show
from wasmlet.controlplane.faults import Delay
from wasmlet.kube import Client, load_identity


async def test_a_guest_that_fails_fails_the_demo(tmp_path: Path, printing: Path) -> None:
    container = "    args: ['7']\n    env: [{name: GREETING, value: on my way}]\n"
    (tmp_path / "pod.yaml").write_text(POD.format(image=f"file://./{printing.name}") + container)
    async with wasmlet("demo", "--port", "0", str(tmp_path / "pod.yaml")) as demo:
        code, output = await demo.end()
    assert code == 1
    assert "  | on my way\n" in output
    assert "Error: the pod ended as Failed; exit code 7 (Error)" in output
    assert "Traceback" not in output


async def test_a_service_with_node_ports_says_what_reaches_it(tmp_path: Path) -> None:
    examples = Path(__file__).parents[3] / "examples"
    text = (examples / "web.yaml").read_text().replace("file://./", f"file://{examples}/")
    (tmp_path / "web.yaml").write_text(
        text.replace("spec:\n  selector:\n    app", "spec:\n  type: NodePort\n  selector:\n    app")
    )
    async with wasmlet("demo", "--port", "0", str(tmp_path / "web.yaml")) as demo:
        code, output = await demo.end()
    assert code == 0, output
    assert (
        "\nnote           nothing listens at its node ports here; use kubectl port-forward service/web LOCAL:80"
        in output
    )
    assert "HTTP 200 OK" in output


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
    assert "Note: the module has --keep, --port, -h among its arguments; options of the demo go before FILE" in output
    assert re.search(r"^pod/my-module-1 +Succeeded$", output, re.MULTILINE)
    async with wasmlet("demo", "--port", "0", str(module), "--", "7") as demo:
        code, output = await demo.end()
    assert code == 1
    assert "Error: the pod ended as Failed; exit code 7 (Error)" in output
    assert "Note:" not in output


async def test_a_line_without_end_is_shown_in_part(tmp_path: Path) -> None:
    long = """(module
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 64)
      (func (export "_start")
        (memory.fill (i32.const 16) (i32.const 120) (i32.const 3145728))
        (i32.store (i32.const 0) (i32.const 16))
        (i32.store (i32.const 4) (i32.const 3145728))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""
    (tmp_path / "long.wasm").write_bytes(wasmtime.wat2wasm(long))
    async with wasmlet("demo", "--port", "0", str(tmp_path / "long.wasm")) as demo:
        code, output = await demo.end()
    assert code == 0, output[:2000]
    assert re.search(r"^  \| x{60000,} \.\.\. \(2\.9\d\d? MiB more\)$", output, re.MULTILINE)


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
