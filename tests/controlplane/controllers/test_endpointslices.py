"""Services and their EndpointSlices: which pods are in them, under which ports, and how little is written."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controlplane.client import MERGE, PODS, STRATEGIC, Api, Kubectl, Object, pod
from tests.controlplane.controllers.test_deployments import version
from tests.controlplane.controllers.workloads import (
    LABELS,
    SERVICES,
    SLICES,
    available,
    deployment,
    ready_status,
    running,
    service,
    until,
)


def addresses(found: list[Object], *, ready: bool = True) -> list[str]:
    """The addresses of the endpoints that are ready, or of those that are not."""
    return sorted(
        address
        for item in found
        for endpoint in item["endpoints"]
        if endpoint["conditions"]["ready"] is ready
        for address in endpoint["addresses"]
    )


async def make(api: Api, name: str, address: str, *, ready: bool = True, port: int = 8080, **spec: Any) -> None:
    """A pod that runs, with a port that is called http."""
    body = pod(name, nodeName="n1", **spec)
    body["metadata"]["labels"] = LABELS
    body["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": port}]
    await api.ok("POST", PODS, body)
    status = {"status": ready_status(address, ready=ready)}
    await api.ok("PATCH", f"{PODS}/{name}/status", status, media=STRATEGIC)


async def test_a_deployment_behind_a_service(kube: Kubectl, api: Api) -> None:
    async with running(api):
        await kube("apply", "-f", "-", stdin=deployment())
        await kube("apply", "-f", "-", stdin=service())
        await available(api, 2)
        (found,) = await until(api, SLICES, lambda found: len(addresses(found)) == 2)
        assert addresses([found]) == ["10.1.0.1", "10.1.0.2"]
        assert found["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
        assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
        assert found["metadata"]["ownerReferences"][0]["kind"] == "Service"
        (endpoint, _) = found["endpoints"]
        assert (endpoint["nodeName"], endpoint["targetRef"]["kind"]) == ("n1", "Pod")
        out = await kube("get", "endpointslices,svc,deploy,rs")
        lines = {line.split()[0].split("/")[0]: line.split() for line in out.splitlines() if "/" in line}
        assert lines["endpointslice.discovery.k8s.io"][1:3] == ["IPv4", "8080"]
        assert sorted(lines["endpointslice.discovery.k8s.io"][3].split(",")) == ["10.1.0.1", "10.1.0.2"]
        assert lines["deployment.apps"][1] == "2/2"
        assert lines["replicaset.apps"][1:4] == ["2", "2", "2"]
        assert lines["service"][1] == "ClusterIP"
        assert lines["service"][2].startswith("10.96.0.")
        assert "10.1.0.1:8080" in await kube("describe", "service", "web")
        await kube("scale", "deployment/web", "--replicas=1")
        await until(api, SLICES, lambda found: len(addresses(found)) == 1)
        await kube("delete", "service", "web")
        await until(api, SLICES, lambda found: not found)


async def test_readiness_and_termination_are_told(api: Api) -> None:
    await api.ok("POST", SERVICES, service())
    await until(api, SLICES, lambda found: len(found) == 1)
    await make(api, "a", "10.1.0.1")
    await make(api, "b", "10.1.0.2", ready=False)
    found = await until(api, SLICES, lambda found: addresses(found, ready=False) == ["10.1.0.2"])
    assert addresses(found) == ["10.1.0.1"]
    await api.ok("DELETE", f"{PODS}/a")
    (found,) = await until(api, SLICES, lambda found: not addresses(found))
    (leaving,) = (item for item in found["endpoints"] if item["addresses"] == ["10.1.0.1"])
    assert leaving["conditions"] == {"ready": False, "serving": True, "terminating": True}
    await api.ok("PATCH", f"{SERVICES}/web", {"spec": {"publishNotReadyAddresses": True}}, media=MERGE)
    await until(api, SLICES, lambda found: addresses(found) == ["10.1.0.1", "10.1.0.2"])
    status = {"status": ready_status("10.1.0.2", ready=False, phase="Failed")}
    await api.ok("PATCH", f"{PODS}/b/status", status, media=STRATEGIC)
    await until(api, SLICES, lambda found: addresses(found) == ["10.1.0.1"])
    await api.ok("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 0})
    (found,) = await until(api, SLICES, lambda found: not found[0]["endpoints"])
    assert not found["ports"]


async def test_a_named_port_with_two_numbers_makes_two_slices(api: Api) -> None:
    await make(api, "a", "10.1.0.1")
    await make(api, "b", "10.1.0.2", port=9090)
    await api.ok("POST", SERVICES, service())
    found = await until(api, SLICES, lambda found: len(found) == 2)
    ports = {item["ports"][0]["port"]: addresses([item]) for item in found}
    assert ports == {8080: ["10.1.0.1"], 9090: ["10.1.0.2"]}
    await api.ok("DELETE", f"{PODS}/b", {"gracePeriodSeconds": 0})
    (found,) = await until(api, SLICES, lambda found: len(found) == 1)


async def test_families_hostnames_zones_and_headless(api: Api) -> None:
    labels = {"metadata": {"labels": {"topology.kubernetes.io/zone": "here"}}}
    await api.ok(
        "POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"} | labels["metadata"]}
    )
    await make(api, "a", "10.1.0.1", hostname="first", subdomain="web")
    both = {"status": {"podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]}}
    await api.ok("PATCH", f"{PODS}/a/status", both, media=STRATEGIC)
    await api.ok("POST", SERVICES, service(clusterIP="None", ipFamilies=["IPv4", "IPv6"]))
    found = await until(api, SLICES, lambda found: len(found) == 2)
    assert sorted((item["addressType"], *addresses([item])) for item in found) == [
        ("IPv4", "10.1.0.1"),
        ("IPv6", "fd00::1"),
    ]
    for item in found:
        assert "service.kubernetes.io/headless" in item["metadata"]["labels"]
        (endpoint,) = item["endpoints"]
        assert (endpoint["hostname"], endpoint["zone"]) == ("first", "here")


async def test_a_hundred_endpoints_are_a_slice(api: Api) -> None:
    await api.ok("POST", SERVICES, service())
    for number in range(102):
        await make(api, f"p{number}", f"10.1.{number // 250}.{number % 250 + 1}")
    found = await until(api, SLICES, lambda found: len(addresses(found)) == 102)
    assert sorted(len(item["endpoints"]) for item in found) == [2, 100]


async def test_idle_slices_are_left_alone_and_a_flapping_pod_is_one_write_each_time(api: Api) -> None:
    await make(api, "a", "10.1.0.1")
    await api.ok("POST", SERVICES, service())
    await until(api, SLICES, lambda found: addresses(found) == ["10.1.0.1"])
    before = await version(api)
    for _ in range(20):
        await api.ok("GET", SLICES)
    assert await version(api) == before
    for turn in range(10):
        status = {"status": ready_status("10.1.0.1", ready=turn % 2 == 1)}
        await api.ok("PATCH", f"{PODS}/a/status", status, media=STRATEGIC)
    await until(api, SLICES, lambda found: addresses(found) == ["10.1.0.1"])
    assert await version(api) - before <= 2 * 10


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("NodePort", "nothing"),
        ("LoadBalancer", "this Service gets no address from outside, and nothing"),
    ],
)
async def test_a_service_for_others_outside_says_what_reaches_it(kube: Kubectl, kind: str, why: str) -> None:
    for command, body, warned in (
        ("created", service("web", type=kind), True),
        ("unchanged", service("web", type=kind), False),
        ("configured", service("web", type=kind, sessionAffinity="ClientIP"), False),
        ("configured", service("web", type="ClusterIP"), False),
        ("configured", service("web", type=kind), True),
    ):
        code, out, err = await kube.run("apply", "-f", "-", stdin=body)
        assert (code, out) == (0, f"service/web {command}\n"), err
        wanted = (
            f"Warning: {why} listens at its node ports here; use kubectl port-forward service/web LOCAL:80, or the "
        )
        assert (wanted + "address of a pod" in err) == warned, (command, err)


async def test_a_service_without_a_selector_is_left_to_who_made_it(api: Api) -> None:
    await make(api, "a", "10.1.0.1")
    await api.ok("POST", SERVICES, service("other", selector={}))
    await api.ok("POST", SERVICES, service())
    found = await until(api, SLICES, lambda found: len(found) == 1)
    assert found[0]["metadata"]["labels"]["kubernetes.io/service-name"] == "web"


async def test_addresses_and_ports_of_services(kube: Kubectl, api: Api) -> None:
    one = await api.ok("POST", SERVICES, service("one"))
    status, answer = await api("POST", SERVICES, service("two", clusterIP=one["spec"]["clusterIP"]))
    assert (status, "provided IP is already allocated" in answer["message"]) == (422, True)
    status, answer = await api("POST", SERVICES, service("two", clusterIP="192.0.2.1"))
    assert (status, "must be an address of 10.96.0.0/20" in answer["message"]) == (422, True)
    two = await api.ok("POST", SERVICES, service("two", type="NodePort"))
    port = two["spec"]["ports"][0]["nodePort"]
    assert port in range(30000, 32768)
    assert f"80:{port}/TCP" in await kube("get", "service", "two")
    assert await kube("apply", "-f", "-", stdin=service("three")) == "service/three created\n"
    assert await kube("apply", "-f", "-", stdin=service("three")) == "service/three unchanged\n"
    status, answer = await api("PATCH", f"{SERVICES}/two", {"spec": {"clusterIP": "10.96.0.77"}}, media=MERGE)
    assert (status, "may not change once set" in answer["message"]) == (422, True)
    changed = await api.ok("PATCH", f"{SERVICES}/two", {"spec": {"type": "ClusterIP"}}, media=MERGE)
    assert "nodePort" not in changed["spec"]["ports"][0]
    assert changed["spec"]["clusterIP"] == two["spec"]["clusterIP"]
    twice = [{"name": "a", "port": 80}, {"name": "a", "port": 80}]
    status, answer = await api("POST", SERVICES, service("four", ports=twice))
    assert (status, 'spec.ports[1].name: Duplicate value: "a"' in answer["message"]) == (422, True)
