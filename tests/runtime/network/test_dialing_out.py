"""Guests that dial: whom they are granted, whom they are not, and what the pod's owner hears of that."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.guests import build
from tests.runtime.harness import Runtime, pod_of
from tests.runtime.network.conftest import ADDRESS
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod
from wasmlet.runtime.network import egress

NODE = Inputs(node_name="node", node_ips=["127.0.0.1"])
DENSE = attrs.evolve(NODE, runtime_handler="wasmlet-dense")


@pytest.fixture(scope="session")
def server(compile_guest: Callable[..., None]) -> str:
    return f"file://{build('server', compile_guest)}"


@pytest.fixture(scope="session")
def dialer(compile_guest: Callable[..., None]) -> str:
    return f"file://{build('dial', compile_guest)}"


async def served(runtime: Runtime, server: str) -> str:
    """The address of a pod that serves at 8080, and does before anybody dials."""
    key = await runtime.create(pod_of("many", image=server, name="server", ports=[{"containerPort": 8080}]), NODE)
    await runtime.running(key)
    return (await runtime.provider.pod_status(key)).pod_ips[0]


def granted(pod: Pod, text: str) -> Pod:
    return Pod({**pod.raw, "metadata": {**pod.raw["metadata"], "annotations": {egress.ANNOTATION: text}}})


def denied(runtime: Runtime) -> list[str]:
    """Whom events say that a guest may not dial, in their order."""
    return [event.message.split()[5].removesuffix(":") for event in runtime.events if event.reason == "EgressDenied"]


@pytest.mark.parametrize("inputs", [NODE, DENSE], ids=["process", "dense"])
async def test_what_is_granted_is_dialled_and_all_else_is_an_event_once(
    networked: Runtime, server: str, dialer: str, inputs: Inputs
) -> None:
    ip = await served(networked, server)
    targets = (f"{ip}:8080", f"{ip}:8081", "192.0.2.1:80", f"{ip}:8081")
    pod = granted(pod_of(*targets, image=dialer, name="client", restart="Always"), f"{ip}:8080")
    key = await networked.create(pod, inputs)
    # It runs again and again, and each instance is refused the same.
    await networked.main(key, lambda status: status.restart_count > 0)
    assert (await networked.log(key, previous=True)).decode().splitlines() == [
        f"{ip}:8080: HTTP/1.1 200",
        f"{ip}:8081: Permission denied",
        "192.0.2.1:80: Permission denied",
        f"{ip}:8081: Permission denied",
    ]
    await networked.event(key, "EgressDenied", "192.0.2.1:80")
    assert sorted(denied(networked)) == sorted([f"{ip}:8081", "192.0.2.1:80"])
    await networked.restart()
    await networked.create(pod, inputs)
    await networked.main(key, lambda status: status.restart_count > 1)
    assert len(denied(networked)) == 2


async def test_the_nodes_own_is_never_dialled(networked: Runtime, dialer: str) -> None:
    """But for 127.0.0.1, which means the pod's own address, where nobody listens."""
    targets = ("127.0.0.2:10250", "127.0.0.53:53", "169.254.169.254:80", "0.0.0.0:80")
    with socket.create_server(("127.0.0.1", 0)) as nodes:
        own = f"127.0.0.1:{nodes.getsockname()[1]}"
        key = await networked.create(granted(pod_of(own, *targets, image=dialer), "*, 127.0.0.0/8:*"), NODE)
        said = (await networked.output(key)).decode().splitlines()
    assert said == [f"{own}: Connection refused", *(f"{where}: Permission denied" for where in targets)]


async def test_a_node_loop_that_comes_back_does_not_open_the_nodes_api(
    networked: Runtime, server: str, dialer: str, there: str
) -> None:
    """Before it has registered, nobody has told it where that is; whom it told before goes on to know."""
    with socket.create_server((there, 0)) as api:
        where = f"{there}:{api.getsockname()[1]}"
        addresses = [{"type": "InternalIP", "address": there}]
        networked.node = {
            "status": {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": api.getsockname()[1]}}}
        }
        await networked.provider.ping()
        await served(networked, server)
        networked.node = {}
        await networked.restart()
        await networked.provider.ping()
        key = await networked.create(granted(pod_of(where, image=dialer), "*, 127.0.0.0/8:*"), NODE)
        assert await networked.output(key) == f"{where}: Permission denied\n".encode()


async def test_the_owners_ceiling_holds_whatever_a_pod_is_granted(tmp_path: Path, server: str, dialer: str) -> None:
    config = attrs.evolve(ADDRESS, egress_max="127.0.0.0/8:8080")
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime:
        ip = await served(runtime, server)
        key = await runtime.create(granted(pod_of(f"{ip}:8080", f"{ip}:8081", image=dialer), "*"), NODE)
        said = (await runtime.output(key)).decode().splitlines()
        assert said == [f"{ip}:8080: HTTP/1.1 200", f"{ip}:8081: Permission denied"]


async def test_without_a_grant_nobody_is_dialled(networked: Runtime, server: str, dialer: str) -> None:
    ip = await served(networked, server)
    key = await networked.create(pod_of(f"{ip}:8080", image=dialer), NODE)
    assert await networked.output(key) == f"{ip}:8080: Permission denied\n".encode()
    assert (await networked.event(key, "EgressDenied")).container_field == "spec.containers{main}"
