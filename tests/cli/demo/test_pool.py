"""`wasmlet demo --pool`: nodes that are processes come, change and go, and leave nothing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
from pathlib import Path

import pytest

from tests.cli.demo.harness import OWN, PATIENCE, processes_with, wasmlet

EXAMPLES = Path(__file__).parents[3] / "examples"


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
    assert await processes_with(kubeconfig.rpartition("/")[0]) == []


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
        assert await processes_with(directory) == []
        assert os.listdir(directory) == []


async def test_a_pool_ends_with_a_demo_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setitem(OWN, "TMPDIR", directory)
        async with wasmlet("demo", "--port", "0", "--pool", "--keep") as demo:
            await demo.line("^up until Ctrl-C")
            before = await processes_with(directory)
            demo.process.kill()
            await demo.process.wait()
        assert len(before) > 5, before  # the operator, two nodes, and what runs their pods
        async with asyncio.timeout(PATIENCE):
            while await processes_with(directory):  # noqa: ASYNC110 - looked at
                await asyncio.sleep(0.1)


async def test_a_pool_has_the_volumes_of_the_examples(tmp_path: Path) -> None:
    manifest = tmp_path / "claim.yaml"
    text = (await asyncio.to_thread((EXAMPLES / "claim.yaml").read_text)).replace("//./", f"//{EXAMPLES}/")
    mine = text.replace("/tmp/wasmlet-example-claim", str(tmp_path / "claim"))
    assert mine != text, "its directory is that of other tests, too"
    manifest.write_text(mine)
    async with wasmlet("demo", "--port", "0", "--pool", str(manifest)) as demo:
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
