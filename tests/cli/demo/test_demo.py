"""`wasmlet demo` and what it shows, from the first line to the last."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import ssl
import tempfile
from pathlib import Path

import pytest

from tests.cli.demo.harness import OWN, PATIENCE, WASMLET, processes_with, wasmlet
from wasmlet.cli.demo import demo as demo_module
from wasmlet.cli.demo import leftovers

RELATIVE = os.path.relpath(WASMLET)
EXAMPLES = {os.path.relpath(path) for path in (Path(__file__).parents[3] / "examples").glob("*.yaml")}


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
    assert await processes_with(kubeconfig.rpartition("/")[0]) == []


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


async def test_what_a_demo_has_left_that_was_killed_is_ended_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setitem(OWN, "TMPDIR", directory)
        async with wasmlet("demo", "--port", "0", "--keep") as demo:
            await demo.line("^up until Ctrl-C")
            demo.process.kill()
            await demo.process.wait()
        assert await processes_with(directory)  # the shim, with the guests of a Deployment
        (demos,) = os.listdir(directory)
        memory = os.readlink(os.path.join(directory, demos, leftovers.RUNTIME, "memory"))
        assert os.listdir(memory)
        async with wasmlet("demo", "--port", "0", "examples/hello/hello.wasm") as demo:
            code, output = await demo.end()
        assert code == 0, output
        assert os.path.basename(memory) not in os.listdir("/dev/shm")
        assert f"ended what a demo that was killed has left in {directory}/wasmlet-demo-" in output
        assert await processes_with(directory) == []
        assert os.listdir(directory) == []
