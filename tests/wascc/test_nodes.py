"""Actors on nodes of other kinds, as users have them: behind an agent, and where pods have no network of their own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import orjson
import pytest
from aiohttp import ClientSession
from click.testing import CliRunner
from wasmlet_wascc import WasccProvider

from tests.remote.agents import PATIENCE, REAL, ROOT, AgentProcess, running
from tests.remote.hosts import Stand, stand
from tests.runtime.harness import Runtime
from tests.wascc.asking import until
from tests.wascc.pods import LATE, NODE, actor_pod
from tests.wascc.servers import free_port
from tests.wascc.signing import ACCOUNT, actor, unsigned
from wasmlet.cli.commands import cli
from wasmlet.runtime import RuntimeConfig

AGENT = ("--provider=wascc", "--allow-local-modules", "--network=address", "--shim-idle-exit=1",
         f"--wascc-issuers={ACCOUNT.public.text}")  # fmt: skip


@asynccontextmanager
async def behind_an_agent(tmp_path: Path) -> AsyncIterator[tuple[Stand, AgentProcess]]:
    """A node whose agent runs actors, in a cluster that has the classes of pods."""
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(stand(tmp_path))
        agent = await stack.enter_async_context(running(tmp_path / "agent", *AGENT, program=REAL))
        agent.options.append(f"--listen={agent.url.removeprefix('http://')}")  # the same one after its restart
        await there.program(
            "-c", "from wasmlet_remote import main; main()",
            f"--kubeconfig={there.plane.node_kubeconfig('edge')}", "--node-name=edge", "--node-ip=127.0.0.1",
            "--port=0", f"--client-ca-file={there.plane.client_ca_file}", "--no-serving-csr",
            f"--state-dir={tmp_path / 'node'}", f"--endpoint={agent.url}",
        )  # fmt: skip
        yield there, agent


async def test_actors_run_behind_an_agent(tmp_path: Path, kubectl: Path) -> None:
    async with behind_an_agent(tmp_path) as (there, agent):

        async def kube(*arguments: str, given: bytes | None = None) -> str:
            process = await asyncio.create_subprocess_exec(
                kubectl, "--kubeconfig", there.plane.kubeconfig, *arguments, cwd=ROOT,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            async with asyncio.timeout(PATIENCE):
                said = (await process.communicate(given))[0].decode()
            assert process.returncode == 0, said
            return said

        async def run(name: str, image: str, annotations: dict[str, str]) -> None:
            container = {"name": "main", "image": image, "readinessProbe": {"httpGet": {"port": 8080}}}
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "annotations": annotations},
                "spec": {"runtimeClassName": "wasmlet-wascc", "containers": [container]},
            }
            await kube("apply", "-f", "-", given=orjson.dumps(pod))

        async def wait(name: str, path: str) -> None:
            await kube("wait", f"pod/{name}", f"--for=jsonpath={path}", f"--timeout={PATIENCE:g}s")

        await kube("apply", "-f", "examples/runtimeclasses.yaml")
        keyvalue = {"wascc.wasmlet.dev/keyvalue": "memory"}
        counter = actor(tmp_path, unsigned("counter"), "http_server", "keyvalue", "logging", name="counter")
        await run("counter", counter, keyvalue)
        await kube("wait", "pod/counter", "--for=condition=Ready", f"--timeout={PATIENCE:g}s")
        ip = await kube("get", "pod", "counter", "-o", "jsonpath={.status.podIP}")
        async with ClientSession(timeout=LATE) as client:

            async def count() -> int:
                async with client.get(f"http://{ip}:8080/") as answer:
                    return int((await answer.json())["counter"])

            assert [await count() for _ in range(2)] == [1, 2]
            await agent.restart(signal.SIGKILL)
            assert await count() == 3  # it went on without its agent
        events = "involvedObject.name=counter,reason=CapabilityNotGranted"
        await until(lambda: kube("get", "events", f"--field-selector={events}"), lambda said: "wascc:logging" in said)

        (tmp_path / "bare.wasm").write_bytes(unsigned("echo"))
        await run("bare", f"file://{tmp_path}/bare.wasm", {})
        await wait("bare", "{.status.containerStatuses[0].state.waiting.message}")
        why = await kube("get", "pod", "bare", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.message}")
        assert "the actor is not signed" in why
        await kube("delete", "pod", "counter", "bare", f"--timeout={PATIENCE:g}s")


async def test_an_actor_has_its_nodes_network_where_pods_have_none(tmp_path: Path) -> None:
    """As in a cluster whose nodes have no rights."""
    config = RuntimeConfig(allow_local_modules=True, network="none", allow_host_network=True)
    async with Runtime(WasccProvider, tmp_path / "state", config) as node:
        image = actor(tmp_path, unsigned("echo"), "http_server")
        env = [{"name": "PORT", "value": str(free_port("127.0.0.1"))}]
        key = await node.create(actor_pod(image, ports=[], env=env, spec={"hostNetwork": True}), NODE)
        await node.running(key)
        async with ClientSession(timeout=LATE) as client, client.get(f"http://127.0.0.1:{env[0]['value']}/x") as answer:
            assert await answer.text() == "/x"


async def test_an_actor_without_any_network_says_what_it_needs(tmp_path: Path) -> None:
    config = RuntimeConfig(allow_local_modules=True, network="none")
    async with Runtime(WasccProvider, tmp_path / "state", config) as node:
        key = await node.create(actor_pod(actor(tmp_path, unsigned("echo"), "http_server")), NODE)
        assert "needs a network" in (await node.ended(key)).message


@pytest.mark.parametrize("words", [("--provider", "wascc"), ("--provider", "wasmtime", "--engine", "wascc")])
async def test_the_doctor_looks_at_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    issuers = ("--wascc-issuers", ACCOUNT.public.text)
    given = ["doctor", *words, "--state-dir", str(tmp_path / "state"), "--kubeconfig", str(tmp_path / "none"), *issuers]
    found = await asyncio.to_thread(CliRunner().invoke, cli, given)
    assert f"ok     provider {words[1]}: can run here" in found.output
    wrong = await asyncio.to_thread(CliRunner().invoke, cli, [*given[:-1], "nobody"])
    assert "--wascc-issuers: this is no nkey" in str(wrong.exception)
