"""The Node object and its lease: made, kept true, made again, and left alone where they are others'."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import socket
import sys
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import attrs
import pytest

import wasmlet
from tests.node.cluster import NODE, Cluster, condition, running
from wasmlet.concurrency import first_of
from wasmlet.kube.client import MERGE_PATCH, STRATEGIC_PATCH
from wasmlet.node import lease, node
from wasmlet.testing.reference import ReferenceProvider

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}"


async def test_the_node_says_what_it_is(cluster: Cluster, provider: ReferenceProvider) -> None:
    settings = {"node_labels": ("zone=a",), "register_with_taints": ("mine=1:NoSchedule",), "max_pods": 17}
    async with cluster.node(provider, **settings):
        node = await cluster.admin.get(f"/api/v1/nodes/{NODE}")
    labels = node["metadata"]["labels"]
    here = ("linux", {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()))
    assert (labels["kubernetes.io/os"], labels["kubernetes.io/arch"]) == here  # what a plain provider runs
    assert labels["kubernetes.io/hostname"] == NODE
    assert labels["zone"] == "a"
    assert labels["node.kubernetes.io/exclude-from-external-load-balancers"] == "true"
    # A real API server adds not-ready, which the cluster's node controller takes away again.
    assert {(t["key"], t.get("value"), t["effect"]) for t in node["spec"]["taints"]} >= {
        ("wasmlet.dev/provider", "reference", "NoSchedule"),
        ("mine", "1", "NoSchedule"),
    }
    assert node["spec"]["providerID"] == f"wasmlet://{NODE}"
    status = node["status"]
    amounts = {name: wasmlet.Quantity.parse(text) for name, text in status["capacity"].items()}
    assert amounts.pop("cpu") == wasmlet.Quantity.parse("1000")
    assert amounts.pop("memory") == wasmlet.Quantity.parse("1000Gi")
    assert amounts.pop("pods") == wasmlet.Quantity.parse("17")
    assert status["allocatable"] == status["capacity"]
    assert {"type": "InternalIP", "address": "127.0.0.1"} in status["addresses"]
    assert [a["type"] for a in status["addresses"]] == ["InternalIP"], "the node's name does not resolve"
    assert status["daemonEndpoints"]["kubeletEndpoint"]["Port"] > 0
    assert status["declaredFeatures"] == ["ExtendWebSocketsToKubelet"]
    assert status["nodeInfo"]["operatingSystem"] == here[0]
    assert condition(node, "Ready")["status"] == "True"
    for pressure in ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"):
        assert condition(node, pressure)["status"] == "False"


async def test_the_lease_is_held_by_the_node_and_owned_by_it(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with cluster.node(provider):
        lease = await cluster.admin.get(LEASE)
        node = await cluster.admin.get(f"/api/v1/nodes/{NODE}")
    assert lease["spec"]["holderIdentity"] == NODE
    assert lease["spec"]["leaseDurationSeconds"] == 40
    assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


async def test_a_restart_keeps_the_node_and_what_others_put_there(
    cluster: Cluster, provider: ReferenceProvider
) -> None:
    async with cluster.node(provider):
        pass
    path = f"/api/v1/nodes/{NODE}"
    before = await cluster.admin.patch(
        path, {"metadata": {"labels": {"theirs": "1", "handler.wasmlet.dev/of-old": "true"}}}, MERGE_PATCH
    )
    foreign = {"type": "Theirs", "status": "True", "reason": "Because", "message": "", "lastHeartbeatTime": None}
    await cluster.admin.patch(f"{path}/status", {"status": {"conditions": [foreign]}}, STRATEGIC_PATCH)
    async with cluster.node(provider):
        after = await cluster.admin.get(path)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["labels"]["theirs"] == "1"
    assert "handler.wasmlet.dev/of-old" not in after["metadata"]["labels"]
    assert condition(after, "Theirs")["reason"] == "Because"
    assert condition(after, "Ready")["lastTransitionTime"] == condition(before, "Ready")["lastTransitionTime"]


class Annotated(ReferenceProvider):
    says = "so"

    async def node_status(self) -> wasmlet.NodeStatus:
        return attrs.evolve(await super().node_status(), annotations={"example.com/says": self.says})


async def test_annotations_are_the_provider_s(cluster: Cluster) -> None:
    path = f"/api/v1/nodes/{NODE}"
    async with cluster.node(Annotated()):
        await cluster.admin.patch(path, {"metadata": {"annotations": {"theirs": "1"}}}, MERGE_PATCH)
    later = Annotated()
    later.says = "otherwise"
    async with cluster.node(later):
        annotations = (await cluster.admin.get(path))["metadata"]["annotations"]
    assert (annotations["example.com/says"], annotations["theirs"]) == ("otherwise", "1")


async def test_a_node_that_was_deleted_is_made_again(cluster: Cluster, provider: ReferenceProvider) -> None:
    path = f"/api/v1/nodes/{NODE}"
    async with cluster.node(provider):
        before = await cluster.admin.get(path)
        await cluster.admin.delete(path)
        provider.node_changed()
        async with asyncio.timeout(30):
            async with cluster.admin.stream("/api/v1/nodes", {"watch": "1"}) as content:
                line = await content.readline()
    assert line.startswith(b'{"type":"ADDED"')
    after = await cluster.admin.get(path)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]


async def test_a_provider_that_does_not_answer_makes_the_node_not_ready(cluster: Cluster) -> None:
    class Sick(ReferenceProvider):
        sick = False

        async def ping(self) -> None:
            if self.sick:
                raise RuntimeError("the engine is gone")

    provider = Sick()

    async def ready(status: str) -> str:
        async with asyncio.timeout(30):
            while True:
                found = condition(await cluster.admin.get(f"/api/v1/nodes/{NODE}"), "Ready")
                if found["status"] == status:
                    return str(found["message"])

    async with cluster.node(provider):
        await ready("True")
        provider.sick = True
        provider.node_changed()
        assert "the engine is gone" in await ready("False")
        provider.sick = False
        provider.node_changed()
        await ready("True")


async def test_a_taken_port_is_told(cluster: Cluster, provider: ReferenceProvider) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(wasmlet.ConfigError, match=r"port \d+ on 127.0.0.1 cannot be used.*--port"):
            async with cluster.node(provider, port=taken.getsockname()[1]):
                pass


async def test_a_server_that_is_away_is_told(cluster: Cluster, provider: ReferenceProvider) -> None:
    kubeconfig = cluster.plane.node_kubeconfig(NODE)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        away = kubeconfig.with_name("away")
        away.write_text(
            kubeconfig.read_text().replace(cluster.plane.url, f"https://127.0.0.1:{taken.getsockname()[1]}")
        )
        with pytest.raises(wasmlet.ConfigError, match="is the API server running"):
            async with cluster.node(provider, kubeconfig=away):
                pass


async def test_a_provider_that_cannot_start_is_told_and_stopped(cluster: Cluster) -> None:
    class Broken(ReferenceProvider):
        stopped = False

        async def start(self, context: wasmlet.NodeContext) -> None:
            raise wasmlet.ConfigError("no engine here")

        async def stop(self) -> None:
            self.stopped = True

    provider = Broken()
    with pytest.raises(wasmlet.ConfigError, match="no engine here"):
        async with cluster.node(provider):
            pass
    assert provider.stopped


async def test_stopping_leaves_pods_running_and_draining_ends_them(
    cluster: Cluster, provider: ReferenceProvider
) -> None:
    async with cluster.node(provider):
        await cluster.create()
        await cluster.until(running)
    assert len(provider.pods) == 1
    assert (await cluster.get()).phase == "Running"
    async with cluster.node(provider, drain_on_exit=True):
        await provider.until(lambda: provider.pods)
    assert not provider.pods
    pod = await cluster.get()
    assert pod.phase == "Failed"
    assert pod.status["reason"] == "Terminated"
    ready = condition(await cluster.admin.get(f"/api/v1/nodes/{NODE}"), "Ready")
    assert (ready["status"], ready["message"]) == ("False", "node is shutting down")


async def test_what_is_reserved_is_not_given_to_pods(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with cluster.node(provider, system_reserved="cpu=500m,memory=2Ti,example.com/none=1"):
        status = (await cluster.admin.get(f"/api/v1/nodes/{NODE}"))["status"]
    allocatable = {name: wasmlet.Quantity.parse(text) for name, text in status["allocatable"].items()}
    assert allocatable["cpu"] == wasmlet.Quantity.parse("999500m")
    assert not allocatable["memory"], "more is reserved than there is"
    assert status["allocatable"]["pods"] == status["capacity"]["pods"]
    assert "example.com/none" not in allocatable


@pytest.mark.parametrize(("given", "shown"), [("gce://null/null/null", "gce://null/null/null"), ("", None)])
async def test_the_provider_id_is_as_given(
    cluster: Cluster, provider: ReferenceProvider, given: str, shown: str | None
) -> None:
    async with cluster.node(provider, provider_id=given):
        node = await cluster.admin.get(f"/api/v1/nodes/{NODE}")
    assert node["spec"].get("providerID") == shown


async def test_a_hostname_is_told_where_it_is_the_nodes_for_others_too(
    cluster: Cluster, provider: ReferenceProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster.node(provider):
        addresses = (await cluster.admin.get(f"/api/v1/nodes/{NODE}"))["status"]["addresses"]
    assert [one["type"] for one in addresses] == ["InternalIP"]

    async def known(name: str, ip: str) -> bool:
        return name == NODE

    monkeypatch.setattr(node, "names_this_node", known)
    async with cluster.node(provider):
        addresses = (await cluster.admin.get(f"/api/v1/nodes/{NODE}"))["status"]["addresses"]
    assert addresses[1:] == [{"type": "Hostname", "address": NODE}]


class TestOneNodeOneProcess:
    async def test_a_second_process_with_the_same_name_is_refused(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
        monkeypatch.setattr(lease, "CLAIM_SECONDS", 3.0)
        second = ReferenceProvider()
        async with cluster.node(ReferenceProvider()):
            before = await cluster.admin.get(f"/api/v1/nodes/{NODE}")
            with pytest.raises(wasmlet.ConfigError, match=r"another process is node n1 already.*--node-name"):
                async with cluster.node(second, state_dir=tmp_path / "other"):
                    pass
            after = await cluster.admin.get(f"/api/v1/nodes/{NODE}")
        assert after["status"]["daemonEndpoints"] == before["status"]["daemonEndpoints"]

    async def test_the_same_state_directory_is_refused_at_once(self, cluster: Cluster) -> None:
        async with cluster.node(ReferenceProvider()):
            with pytest.raises(wasmlet.ConfigError, match=r"in use by another process.*--state-dir"):
                async with cluster.node(ReferenceProvider()):
                    pass

    async def test_a_restart_knows_its_own_lease_and_does_not_wait(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with cluster.node(ReferenceProvider()):
            pass
        monkeypatch.setattr(lease, "CLAIM_SECONDS", 10_000.0)
        async with cluster.node(ReferenceProvider()):
            pass

    async def test_a_node_that_has_ended_by_itself_is_replaced_without_waiting(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        async with cluster.node(ReferenceProvider()):
            pass
        monkeypatch.setattr(lease, "CLAIM_SECONDS", 10_000.0)
        async with cluster.node(ReferenceProvider(), state_dir=tmp_path / "other"):
            found = await cluster.admin.get(LEASE)
        assert found["metadata"]["annotations"]["wasmlet.dev/instance"]

    async def test_a_lease_that_nobody_renews_is_taken_over(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        async with cluster.node(ReferenceProvider()):
            pass
        killed = {"metadata": {"annotations": {"wasmlet.dev/instance": "of-a-node-that-was-killed"}}}
        await cluster.admin.patch(LEASE, killed, MERGE_PATCH)
        monkeypatch.setattr(lease, "CLAIM_SECONDS", 0.3)
        async with cluster.node(ReferenceProvider(), state_dir=tmp_path / "other"):
            found = await cluster.admin.get(LEASE)
        assert found["metadata"]["annotations"]["wasmlet.dev/instance"] == (tmp_path / "other/instance").read_text()


async def test_pods_are_drained_in_the_order_of_their_priority(cluster: Cluster, provider: ReferenceProvider) -> None:
    path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    for name, value in (("high", 1000), ("low", -5)):
        body = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
        await cluster.admin.create(path, body | {"value": value})
    async with cluster.node(provider, drain_on_exit=True):
        for name, spec in (("a", {"priorityClassName": "high"}), ("b", {}), ("c", {"priorityClassName": "low"})):
            await cluster.create(name, **spec)
            await cluster.until(running, name)
    assert [key.name for key in provider.deleted] == ["c", "b", "a"]


async def test_many_nodes_in_one_process(cluster: Cluster) -> None:
    providers = [ReferenceProvider() for _ in range(5)]
    async with AsyncExitStack() as stack:
        for i, provider in enumerate(providers):
            await stack.enter_async_context(cluster.node(provider, name=f"many-{i}"))
            await cluster.create(f"p{i}", nodeName=f"many-{i}")
        for i in range(5):
            await cluster.until(running, f"p{i}")
    assert [[key.name for key in provider.created] for provider in providers] == [[f"p{i}"] for i in range(5)]


async def seen_running(cluster: Cluster, name: str) -> None:
    async with aclosing(cluster.versions(name)) as versions:
        async for _, raw in versions:
            if running(wasmlet.Pod(raw)):
                return


async def run_until(cluster: Cluster, directory: Path, number: signal.Signals, stderr: int) -> tuple[int | None, bytes]:
    """Run a program of `wasmlet.run` until its pod runs and that signal ends it; its exit code and its output."""
    program = directory / "node.py"
    program.write_text(
        "import sys, wasmlet\n"
        "from pathlib import Path\n"
        "from wasmlet.testing.reference import ReferenceProvider\n"
        "kubeconfig, ca, state = map(Path, sys.argv[1:])\n"
        "wasmlet.run(ReferenceProvider(), wasmlet.NodeConfig(kubeconfig=kubeconfig, node_name='n1',\n"
        "    node_ip='127.0.0.1', port=0, client_ca_file=ca, state_dir=state))\n"
    )
    arguments = (cluster.plane.node_kubeconfig(NODE), cluster.plane.client_ca_file, directory / "state")
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        program,
        *arguments,
        env=environment,
        stderr=stderr,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        pod = await cluster.create()
        # However long the process takes to start: the test's own time limit is enough.
        await first_of(seen_running(cluster, pod.name), process.wait())
        assert process.returncode is None
        process.send_signal(number)
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out + (err or b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_cleanly(cluster: Cluster, tmp_path: Path, number: signal.Signals) -> None:
    code, said = await run_until(cluster, tmp_path, number, asyncio.subprocess.PIPE)
    assert code == 0, said.decode()
    assert b"Traceback" not in said
    assert (await cluster.get()).phase == "Running"


async def test_a_node_goes_on_when_its_log_cannot_be_written(cluster: Cluster, tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        assert await run_until(cluster, tmp_path, signal.SIGTERM, full) == (0, b"")
    finally:
        os.close(full)
