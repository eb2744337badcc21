"""Ports of a pod that has an address of a network and no namespace: open while somebody of the pod may listen there.

What listens at all of the node's addresses would answer at a pod's, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.guests import components
from tests.runtime.harness import PATIENCE, Runtime, pod_of
from tests.runtime.network.spaces import own_namespace, run
from wasmlet.errors import InvalidInput
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.runtime import RuntimeConfig
from wasmlet.runtime.shim.instances import Labels
from wasmlet.testing.clock import FakeClock
from wasmlet.testing.contract.streams import Client
from wasmlet.worker import messages

pytestmark = pytest.mark.needs_root("routes and nftables")

NODE = Inputs(node_name="node", node_ips=["127.0.0.1"])
CONFIG = RuntimeConfig(allow_local_modules=True, network="address", pod_cidr=("10.244.7.0/24",))
PORTS = [{"containerPort": 8080}]


@contextlib.asynccontextmanager
async def started(tmp_path: Path) -> AsyncIterator[Runtime]:
    with own_namespace():
        runtime = Runtime(WasmtimeProvider, tmp_path / "state", CONFIG)
        runtime.clock = FakeClock()
        async with runtime:
            yield runtime


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with started(tmp_path) as found:
        yield found


@pytest.fixture
def server() -> str:
    return f"file://{components.web()}"


@contextlib.contextmanager
def behind(port: int) -> Iterator[None]:
    """Somebody of the node listens at this port of all its addresses."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", port))
        listener.listen()
        yield


def answers(ip: str, port: int = 8080) -> bool:
    with socket.socket() as sock:
        sock.settimeout(10)
        try:
            sock.connect((ip, port))
        except ConnectionRefusedError:
            return False
        return True


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if await asyncio.to_thread(holds):
                return
            await asyncio.sleep(0.02)  # nft says nothing when its sets change


def opened(ip: str, port: int = 8080) -> bool:
    return f"{ip} . {port}" in run("nft", "list", "ruleset")


async def address(runtime: Runtime, key: PodKey) -> str:
    return (await runtime.provider.pod_status(key)).pod_ips[0]


async def end(runtime: Runtime, key: PodKey, name: str = "main") -> None:
    """End the instance of this container that runs, as a crash does."""
    client = runtime.provider.services.client
    (record,) = [one for one in client.records.values() if not one.ended and one.labels["container"] == name]
    await client.stop(record.id, 0)


def pod_of_two(server: str, **main: Any) -> Pod:
    """Its containers are `main`, at 8080, and `other`, at 8081."""
    pod = pod_of(image=server, ports=PORTS, **main)
    other = {"name": "other", "image": server, "ports": [{"containerPort": 8081}]}
    return Pod({**pod.raw, "spec": {**pod.raw["spec"], "containers": [*pod.raw["spec"]["containers"], other]}})


class Failing:
    """An nft that fails to delete, and to make its table again, while the file `fails` is there."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails, self.tried = tmp_path / "fails", tmp_path / "tried"
        program = tmp_path / "bin" / "nft"
        program.parent.mkdir()
        program.write_text(
            f"""#!/bin/sh
said=$(cat)
case "$said" in *"delete element"*|*"flush chain"*)
    if [ -e {self.fails} ]; then echo x >> {self.tried}; exit 1; fi ;;
esac
printf "%s\\n" "$said" | {shutil.which("nft")} "$@"
"""
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


async def test_they_are_closed_while_a_container_waits_to_be_restarted(node: Runtime, server: str) -> None:
    key = await node.create(pod_of(image=server, ports=PORTS, restart="Always"), NODE)
    await node.running(key)
    ip = await address(node, key)
    await until(lambda: answers(ip))
    await end(node, key)
    await node.main(key, lambda status: status.restart_count == 1)
    await node.running(key)
    await until(lambda: answers(ip))
    await end(node, key)
    await node.waiting(key, "CrashLoopBackOff")
    await until(lambda: not opened(ip))
    with behind(8080):
        assert not answers(ip)
    node.fake_clock.advance(20)
    await node.main(key, lambda status: status.restart_count == 2)
    await node.running(key)
    await until(lambda: answers(ip))
    await node.provider.delete_pod(key, 0)
    assert not opened(ip)


async def test_they_are_closed_when_a_container_has_ended_and_others_go_on(node: Runtime, server: str) -> None:
    key = await node.create(pod_of_two(server), NODE)
    await node.running(key)
    await node.running(key, "other")
    ip = await address(node, key)
    await until(lambda: answers(ip) and answers(ip, 8081))
    await end(node, key)
    await node.ended(key)
    await until(lambda: not opened(ip))
    with behind(8080):
        assert not answers(ip)
    assert answers(ip, 8081)
    await node.provider.delete_pod(key, 0)


async def test_they_are_closed_when_the_start_has_failed(
    node: Runtime, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*arguments: Any, **more: Any) -> Any:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patched:
        patched.setattr(node.provider.services.client, "run", fails)
        key = await node.create(pod_of(image=server, ports=PORTS, restart="Always"), NODE)
        await node.waiting(key, "RunContainerError")
        ip = await address(node, key)
        await until(lambda: not opened(ip))
    node.fake_clock.advance(600)
    await node.running(key)
    await until(lambda: answers(ip))
    await node.provider.delete_pod(key, 0)


async def test_a_port_that_the_node_has_itself_ends_the_container_once(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its restart policy is Never, and that holds when nft fails just then; it is tried until it has not failed."""
    nft = Failing(tmp_path, monkeypatch)
    async with started(tmp_path) as node:
        key = await node.create(pod_of(image=server, name="first"), NODE)
        await node.running(key)
        with behind(9090):
            nft.fails.touch()
            key = await node.create(pod_of(image=server, ports=[{"containerPort": 9090}], restart="Never"), NODE)
            ended = await node.ended(key)
            assert ended.reason == "StartError"
            ip = await address(node, key)
            await until(nft.tried.exists)
            assert opened(ip, 9090)
            nft.fails.unlink()
            await node.fake_clock.next_sleep()
            node.fake_clock.advance(600)
            await until(lambda: not opened(ip, 9090))
            assert not answers(ip, 9090)
            records = [one for one in node.provider.services.client.records.values() if one.ended]
            assert len(records) == 1


async def test_what_changes_while_nft_fails_is_tried_at_once(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nft = Failing(tmp_path, monkeypatch)
    async with started(tmp_path) as node:
        key = await node.create(pod_of_two(server), NODE)
        await node.running(key)
        await node.running(key, "other")
        ip = await address(node, key)
        nft.fails.touch()
        await end(node, key)
        await until(nft.tried.exists)
        for _ in range(8):
            assert await node.fake_clock.next_sleep() <= 10
            node.fake_clock.advance(10)
        await node.fake_clock.next_sleep()
        assert opened(ip)
        nft.fails.unlink()
        await end(node, key, "other")
        await until(lambda: not opened(ip) and not opened(ip, 8081))


async def test_an_end_that_is_told_again_closes_nothing_of_the_next_instance(
    node: Runtime, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await node.create(pod_of(image=server, ports=PORTS, restart="Always"), NODE)
    await node.running(key)
    ip, client = await address(node, key), node.provider.services.client
    begun, go_on, run_ = asyncio.Event(), asyncio.Event(), client.run

    async def later(*arguments: Any, **more: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await run_(*arguments, **more)

    monkeypatch.setattr(client, "run", later)
    await end(node, key)
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
    assert opened(ip)
    (before,) = client.records.values()
    node.provider._saw(before)  # as the shim tells it when the connection to it is made again
    syncing = node.provider._pods[key.uid].sandbox._syncing
    if syncing is not None:
        await syncing
    assert opened(ip)
    go_on.set()
    await node.running(key)
    await node.provider.delete_pod(key, 0)


async def test_they_are_closed_when_the_start_is_cancelled_and_others_take_their_time(
    node: Runtime, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = node.provider.services.client
    begun, run_ = asyncio.Event(), client.run

    async def never(request: messages.Run, *arguments: Any) -> Any:
        if request.labels["container"] == "other":
            begun.set()
            await asyncio.Event().wait()
        return await run_(request, *arguments)

    monkeypatch.setattr(client, "run", never)
    hook = {"preStop": {"sleep": {"seconds": 60}}}
    key = await node.create(pod_of_two(server, lifecycle=hook), NODE)
    await node.running(key)
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
    ip = await address(node, key)
    assert opened(ip, 8081)
    deleting = asyncio.ensure_future(node.provider.delete_pod(key, 100))
    await until(lambda: not opened(ip, 8081))
    assert opened(ip)
    assert not deleting.done()
    while not deleting.done():
        node.fake_clock.advance(60)
        await asyncio.sleep(0.02)
    await deleting


async def test_a_server_of_a_version_that_did_not_write_them_down(
    node: Runtime, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probes and forwards go on to reach it, at what it declares, and its ports stay open."""
    probe = {"httpGet": {"path": "/hello", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    pod = pod_of(image=server, ports=PORTS, readinessProbe=probe)
    write = Labels.as_message

    def without_ports(labels: Labels) -> dict[str, Any]:
        return {name: value for name, value in write(labels).items() if name != "ports"}

    with monkeypatch.context() as patched:
        patched.setattr(Labels, "as_message", without_ports)
        key = await node.create(pod, NODE)
        await node.main(key, lambda status: bool(status.ready))
    (record,) = node.provider.services.client.records.values()
    assert "ports" not in record.labels
    ip = await address(node, key)
    await node.restart()
    await node.create(pod, NODE)
    client = Client()
    client.sends.put_nowait(b"GET /hello HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
    await node.provider.port_forward(key, 8080, client)
    assert b"hello, component" in client.got
    for _ in range(3):
        node.fake_clock.advance(1)
        await asyncio.sleep(0.1)
    await node.main(key, lambda status: bool(status.ready))
    assert [event.message for event in node.events if event.reason == "Unhealthy"] == []
    assert answers(ip)
    with pytest.raises(InvalidInput, match="connection refused"):
        await node.provider.port_forward(key, 8081, Client())
    await node.provider.delete_pod(key, 0)
    assert not opened(ip)
