"""What a node counts of itself, read the way Prometheus reads it."""

from __future__ import annotations

import math
import platform
import ssl
from collections.abc import Sequence

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

import wasmlet
from tests.node.cluster import NODE, Cluster, running
from wasmlet.kube import load_identity
from wasmlet.testing.reference import ReferenceProvider


async def scraped(cluster: Cluster) -> dict[str, float]:
    """Sample name, with the label values behind it, to its value."""
    node = await cluster.admin.get(f"/api/v1/nodes/{NODE}")
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    context = (await load_identity(cluster.plane.kubeconfig)).ssl_context
    assert context is not None
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = f"https://127.0.0.1:{port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(address, ssl=context) as answer:
        assert answer.status == 200
        text = await answer.text()
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_pods_calls_writes_and_retries_are_counted(cluster: Cluster) -> None:
    class Flaky(ReferenceProvider):
        failures = 2

        async def create_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
            if self.failures:
                self.failures -= 1
                raise RuntimeError("not yet")
            await super().create_pod(pod, inputs)

    provider = Flaky()
    async with cluster.node(provider):
        before = await scraped(cluster)
        assert before["wasmlet_pods Running"] == 0
        done = await cluster.create("done", restartPolicy="Never")
        await cluster.until(running, "done")
        provider.finish(done.key)
        await cluster.until(lambda pod: pod.finished, "done")
        await cluster.create("going")
        await cluster.until(running, "going")
        await cluster.create("gone")
        await cluster.until(running, "gone")
        await cluster.delete("gone")
        await cluster.until_gone("gone")
        after = await scraped(cluster)
    assert after["wasmlet_pods Running"] == 1
    assert after["wasmlet_pods Succeeded"] == 1
    # The same under a kubelet's names.
    assert after[f"kubelet_node_name {NODE}"] == 1
    assert after["kubelet_running_pods"] == 1
    assert after["kubelet_running_containers running"] == 1
    assert after["kubelet_running_containers exited"] == 1
    assert after["kubelet_pod_start_duration_seconds_count"] == 3
    assert after["kubelet_runtime_operations_total create_pod"] == 5
    assert after["kubelet_runtime_operations_errors_total create_pod"] == 2
    assert after["kubelet_runtime_operations_duration_seconds_count create_pod"] == 5
    assert after["process_resident_memory_bytes"] > 1e6
    # What is looked up.
    assert after[f"wasmlet_build_info reference {platform.python_version()} {wasmlet.__version__}"] == 1
    assert after["wasmlet_pods_allocatable"] == 1000
    host = cluster.plane.url.partition("://")[2]
    assert after[f"rest_client_requests_total 200 {host} PATCH"] >= 5
    assert after[f"rest_client_requests_total 200 {host} GET"] > 1
    assert after["kubelet_certificate_manager_client_ttl_seconds"] == math.inf  # it has its certificate from elsewhere
    assert 0 < after["kubelet_certificate_manager_server_ttl_seconds"] < math.inf
    assert not [name for name in after if "_created" in name.partition(" ")[0]]
    assert after["wasmlet_pod_retries_total"] == 2
    assert after["wasmlet_provider_call_seconds_count create_pod"] == 5
    assert after["wasmlet_provider_call_seconds_count delete_pod"] == 1
    assert after["wasmlet_pod_running_seconds_count"] == 3
    assert after["wasmlet_status_write_seconds_count"] >= 5
    assert after["wasmlet_unwritten_statuses"] == 0


async def test_a_provider_has_figures_of_its_own(cluster: Cluster) -> None:
    class Measuring(ReferenceProvider):
        figures_of_its_own: Sequence[wasmlet.Figure] = (
            wasmlet.Figure("battery_volts", "Voltage of each battery.", 3.7, {"battery": "1"}),
        )

        def figures(self) -> Sequence[wasmlet.Figure]:
            return self.figures_of_its_own

    provider = Measuring()
    async with cluster.node(provider):
        assert (await scraped(cluster))["wasmlet_battery_volts 1"] == 3.7
        provider.figures_of_its_own = (wasmlet.Figure("no name", "", 1),)
        found = await scraped(cluster)
    assert found["wasmlet_pods_allocatable"] == 1000, "what a provider gets wrong leaves the rest as it is"
    assert not [name for name in found if "no name" in name or "battery" in name]
