"""Pods with an address of 127.0.0.0/8, as any user can have them: real guests, over restarts of the node loop."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.guests import build
from tests.runtime.harness import Runtime, pod_of
from tests.runtime.network.conftest import ADDRESS
from wasmlet.errors import InvalidInput, Refused
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod
from wasmlet.runtime.network.address import directories
from wasmlet.runtime.network.ranges import loopback_range
from wasmlet.runtime.pods.denials import Denials
from wasmlet.runtime.shim.records import ContainerRecord
from wasmlet.testing.clock import FakeClock
from wasmlet.testing.contract.streams import Client
from wasmlet.worker import wire

NODE = Inputs(node_name="node", node_ips=["127.0.0.1"])
POD_IP = {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
DENSE = attrs.evolve(NODE, runtime_handler="wasmlet-dense")


def written(runtime: Runtime) -> list[str]:
    """The UIDs of the pods whose addresses are written down."""
    places = directories(runtime.state_dir / "runtime")
    return sorted(json.loads(file.read_text())["uid"] for place in places for file in place.iterdir())


def annotated(pod: Pod, **annotations: str) -> Pod:
    named = {name.replace("__", "/").replace("_", "."): text for name, text in annotations.items()}
    return Pod({**pod.raw, "metadata": {**pod.raw["metadata"], "annotations": named}})


async def test_a_pod_has_an_address_in_its_status_its_variables_and_its_hosts_file(
    networked: Runtime, image: str
) -> None:
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"status.{name}"}}} for name in ("podIP", "podIPs")]
    pod = pod_of("env", "podIP", "env", "podIPs", "cat", "/etc/hosts", "sleep", "60", image=image, env=env)
    key = await networked.create(pod, NODE)
    await networked.running(key)
    status = await networked.provider.pod_status(key)
    (ip,) = status.pod_ips
    assert ipaddress.ip_address(ip) in loopback_range(networked.state_dir / "runtime")
    said = (await networked.logged(key, b"\tweb\n")).decode()
    assert said.startswith(f"podIP={ip}\npodIPs={ip}\n")
    assert f"{ip}\tweb\n" in said
    assert "127.0.0.1\tweb\n" not in said
    await networked.provider.delete_pod(key, 0)
    assert written(networked) == []


async def test_an_address_outlives_containers_and_node_loops_and_is_free_after_the_pod(
    networked: Runtime, image: str
) -> None:
    pod = pod_of("env", "IP", "sleep", "0", image=image, restart="Always", env=[POD_IP])
    key = await networked.create(pod, NODE)
    await networked.main(key, lambda status: status.restart_count > 0)
    (ip,) = (await networked.provider.pod_status(key)).pod_ips
    assert await networked.log(key, previous=True) == f"IP={ip}\n".encode()
    other = await networked.create(pod_of("sleep", "60", image=image, name="other"), NODE)
    await networked.running(other)
    (others,) = (await networked.provider.pod_status(other)).pod_ips
    assert others != ip
    await networked.restart()
    # Known before the API has told of the pod, and after.
    assert (await networked.provider.pod_status(other)).pod_ips == (others,)
    await networked.create(pod_of("sleep", "60", image=image, name="other"), NODE)
    assert (await networked.provider.pod_status(other)).pod_ips == (others,)
    assert written(networked) == [key.uid, other.uid] if key.uid < other.uid else [other.uid, key.uid]
    await networked.provider.delete_pod(other, 0)
    assert written(networked) == [key.uid]
    await networked.provider.delete_pod(key, 0)
    assert written(networked) == []


async def test_what_listens_at_all_addresses_of_the_node_is_no_port_of_a_pod(networked: Runtime, image: str) -> None:
    key = await networked.create(pod_of("sleep", "60", image=image, ports=[{"containerPort": 8080}]), NODE)
    await networked.running(key)
    (ip,) = (await networked.provider.pod_status(key)).pod_ips
    server = await asyncio.start_server(lambda reader, writer: writer.close(), ip, 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(InvalidInput, match=f"port {port} of the pod: connection refused: no container of the pod"):
            await networked.provider.port_forward(key, port, Client())


async def test_a_pod_that_is_done_has_no_address_any_more(networked: Runtime, image: str) -> None:
    key = await networked.create(pod_of("print", "x", image=image), NODE)
    assert (await networked.ended(key)).exit_code == 0
    await networked.provider._pods[key.uid]._task  # the end of the pod's own life, which is told to nobody
    assert written(networked) == []
    assert len((await networked.provider.pod_status(key)).pod_ips) == 1  # the status goes on to show it


async def test_what_a_killed_node_loop_left_goes_at_the_next_start(networked: Runtime, image: str) -> None:
    key = await networked.create(pod_of("sleep", "60", image=image), NODE)
    await networked.running(key)
    (directory,) = directories(networked.state_dir / "runtime")
    (directory / "lost").write_text(json.dumps({"uid": "lost", "ips": ["127.9.9.9"]}))
    (directory / "torn").write_text("{")
    await networked.restart()
    assert written(networked) == [key.uid]


async def test_dense_pods_have_an_address_if_they_say_what_for(networked: Runtime, image: str) -> None:
    plain = await networked.create(pod_of("sleep", "60", image=image, name="plain"), DENSE)
    ported = await networked.create(
        pod_of("sleep", "60", image=image, name="ported", ports=[{"containerPort": 8080}]), DENSE
    )
    await networked.running(plain)
    assert (await networked.provider.pod_status(plain)).pod_ips == ()
    assert len((await networked.until(ported, lambda status: bool(status.pod_ips))).pod_ips) == 1
    assert written(networked) == [ported.uid]


async def test_without_a_network_a_pod_is_as_it_was(runtime: Runtime, image: str) -> None:
    pod = annotated(
        pod_of("env", "IP", "env", "PORT", image=image, env=[POD_IP], ports=[{"containerPort": 80}]),
        wasmlet_dev__egress="nonsense",
    )
    key = await runtime.create(pod, NODE)
    assert await runtime.output(key) == b"IP=127.0.0.1\nPORT is not set\n"
    assert (await runtime.provider.pod_status(key)).pod_ips == ()
    assert not (runtime.state_dir / "runtime" / "network").exists()
    assert directories(runtime.state_dir / "runtime") == []


async def test_an_annotation_that_is_no_grant_refuses_the_pod(networked: Runtime, image: str) -> None:
    with pytest.raises(Refused, match=r"metadata\.annotations\[wasmlet\.dev/egress\]: expected HOST:PORT"):
        await networked.create(annotated(pod_of(image=image), wasmlet_dev__egress="api.example.com"), NODE)
    assert await networked.provider.list_pods() == []
    # One that becomes none while the pod runs is told at the next start.
    good = annotated(pod_of("sleep", "0", image=image, restart="Always"), wasmlet_dev__egress="a:1")
    key = await networked.create(good, NODE)
    await networked.provider.update_pod(annotated(good, wasmlet_dev__egress="a"), NODE)
    waiting = await networked.waiting(key, "CreateContainerConfigError")
    assert "metadata.annotations[wasmlet.dev/egress]" in waiting.message


async def test_no_address_is_left(tmp_path: Path, image: str) -> None:
    """The pod waits, says so, and has the address once another pod has gone."""
    config = attrs.evolve(ADDRESS, pod_cidr=("127.77.0.0/29",))
    runtime = Runtime(WasmtimeProvider, tmp_path / "state", config)
    runtime.clock = FakeClock()
    async with runtime:
        five = [await runtime.create(pod_of("sleep", "60", image=image, name=f"p{at}"), NODE) for at in range(5)]
        for key in five:
            await runtime.until(key, lambda status: bool(status.pod_ips))
        late = await runtime.create(pod_of("sleep", "60", image=image, name="late"), NODE)
        event = await runtime.event(late, "FailedCreatePodSandBox", "all 5 of 127.77.0.0/29 are taken")
        assert event.type == "Warning"
        assert event.message.startswith("Failed to create pod sandbox: ")
        for pause in (1.0, 2.0):
            assert await runtime.fake_clock.next_sleep(pause, pause) == pause
            if pause == 2.0:
                await runtime.provider.delete_pod(five[0], 0)
            runtime.fake_clock.advance(pause)
        await runtime.running(late)
        assert len([event for event in runtime.events if event.reason == "FailedCreatePodSandBox"]) == 2
        for key in (*five[1:], late):
            await runtime.provider.delete_pod(key, 0)
        assert written(runtime) == []


async def test_the_nodes_own_network_for_a_pod(tmp_path: Path, image: str) -> None:
    spec = {"hostNetwork": True}
    pod = pod_of("env", "IP", "env", "HOSTNAME", "cat", "/etc/hosts", image=image, env=[POD_IP], spec=spec)
    async with Runtime(WasmtimeProvider, tmp_path / "off", ADDRESS) as runtime:
        with pytest.raises(Refused, match=r"spec\.hostNetwork.*--allow-host-network"):
            await runtime.create(pod, NODE)
    config = attrs.evolve(ADDRESS, allow_host_network=True)
    async with Runtime(WasmtimeProvider, tmp_path / "on", config) as runtime:
        key = await runtime.create(pod, attrs.evolve(NODE, node_ips=["192.0.2.7"]))
        said = (await runtime.output(key)).decode()
        assert said.startswith("IP=192.0.2.7\nHOSTNAME=node\n# Kubernetes-managed hosts file (host network).\n")
        assert (await runtime.provider.pod_status(key)).pod_ips == ("192.0.2.7",)


async def test_the_nodes_own_network_where_pods_have_no_other(tmp_path: Path, image: str) -> None:
    """As in a cluster, where a node runs in a pod and has no rights to make addresses."""
    config = attrs.evolve(ADDRESS, network="none", allow_host_network=True)
    node = attrs.evolve(NODE, node_ips=["192.0.2.7"])
    async with Runtime(WasmtimeProvider, tmp_path, config) as runtime:
        with pytest.raises(Refused, match="hostPort cannot be given: a guest has no network"):
            await runtime.create(pod_of("env", image=image, ports=[{"containerPort": 8080, "hostPort": 8080}]), node)
        other = await runtime.create(pod_of("env", "IP", image=image, env=[POD_IP], name="other"), node)
        await runtime.output(other)
        assert (await runtime.provider.pod_status(other)).pod_ips == ()
        ports = [{"containerPort": 8080, "hostPort": 8080}]
        key = await runtime.create(
            pod_of("env", "IP", image=image, env=[POD_IP], ports=ports, spec={"hostNetwork": True}), node
        )
        assert (await runtime.output(key)).decode() == "IP=192.0.2.7\n"
        assert (await runtime.provider.pod_status(key)).pod_ips == ("192.0.2.7",)


async def test_what_is_refused_is_an_event_once(networked: Runtime, image: str) -> None:
    key = await networked.create(pod_of("sleep", "60", image=image), NODE)
    await networked.running(key)
    client = networked.provider.services.client

    def refuse(*targets: str) -> None:
        record = next(record for record in client.records.values() if record.labels["pod"]["uid"] == key.uid)
        networked.provider._saw(attrs.evolve(record, refused=targets))

    refuse("a.example.com:443")
    refuse("a.example.com:443", "10.0.0.1:80")
    await networked.event(key, "EgressDenied", "10.0.0.1:80")
    events = [event for event in networked.events if event.reason == "EgressDenied"]
    assert [event.message.split()[5] for event in events] == ["a.example.com:443:", "10.0.0.1:80:"]
    assert {event.container_field for event in events} == {"spec.containers{main}"}


def test_what_was_refused_while_no_node_loop_was_there_is_told_by_the_next_one() -> None:
    told: list[str] = []
    denials = Denials()

    def say(type: str, reason: str, message: str) -> None:  # noqa: A002 - as `Say` has it
        told.append(message.split()[5])

    record = ContainerRecord("a" * 32, {}, "log", wire.RUNNING, refused=("a:1", "b:1"), unheard=("b:1",))
    denials.saw(record, say, ours=False)
    assert told == ["b:1:"]
    denials.saw(attrs.evolve(record, refused=("a:1", "b:1", "c:1")), say, ours=False)
    assert told == ["b:1:", "c:1:"]


async def test_a_hosts_file_that_is_too_much_for_the_shim_is_named(
    networked: Runtime, compile_guest: Callable[..., None]
) -> None:
    names = [f"a{number}.{'.'.join(['b' * 60] * 4)}" for number in range(260)]
    pod = pod_of("turn", image=f"file://{build('server', compile_guest)}")
    aliases = [{"ip": "192.0.2.1", "hostnames": names}]
    key = await networked.create(Pod({**pod.raw, "spec": {**pod.raw["spec"], "hostAliases": aliases}}), NODE)
    waiting = await networked.waiting(key, "RunContainerError")
    assert "does not fit into one message" in waiting.message
    assert "hostAliases" in waiting.message
