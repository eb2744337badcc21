"""hostIP, hostIPs and startTime are always there; podIP(s) where the node has a network, and Services lead there.

On a cluster the tests of Services need root: its EndpointSlices have no addresses of loopback, which need nobody.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from tests.conformance.conftest import Own
from tests.conformance.harness import SECONDS, Kube
from tests.conformance.machine import Machine

WEB = Path(__file__).parents[3] / "examples" / "web" / "web.wasm"
PORT = {"name": "http", "containerPort": 8080}


async def test_host_addresses_and_start_time(kube: Kube) -> None:
    created = await kube.create("print", "x")
    pod = await kube.phase("Succeeded")
    node = await kube.node_object()
    address = next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")
    assert pod["status"]["hostIP"] == address
    assert pod["status"]["hostIPs"] == [{"ip": address}]
    began = datetime.fromisoformat(pod["status"]["startTime"])
    assert began >= datetime.fromisoformat(created["metadata"]["creationTimestamp"])
    # Never the node's, or a service would send its traffic there.
    assert not pod["status"].get("podIP")


async def test_an_address_of_the_pods_own(net: Kube) -> None:
    for name in ("a", "b"):
        await net.serve(name=name)
    pods = [await net.ready(name) for name in ("a", "b")]
    addresses = {pod["status"]["podIP"] for pod in pods}
    assert len(addresses) == 2
    assert [pod["status"]["podIPs"] for pod in pods] == [[{"ip": pod["status"]["podIP"]}] for pod in pods]
    assert not addresses & {pod["status"]["hostIP"] for pod in pods}


async def test_the_hosts_network(net: Kube, own: Own) -> None:
    """Only where the node's owner allows it; then the pod is at the node's address."""
    await net.refuses("p", "spec.hostNetwork", spec={"hostNetwork": True})
    async with own(given={"network": "address", "allow_host_network": True}) as kube:
        await kube.create("sleep", "1000", spec={"hostNetwork": True})
        pod = await kube.ready()
        assert pod["status"]["podIP"] == pod["status"]["hostIP"]


@pytest_asyncio.fixture(loop_scope="session")
async def served(machine: Machine, own: Own) -> AsyncGenerator[Kube, None]:
    """A namespace on a node of the test's own, whose pods have addresses that a Service can lead to."""
    if not machine.real:
        async with own(given={"network": "address"}) as kube:
            yield kube
        return
    if os.geteuid() != 0:
        pytest.skip("needs root: a cluster's EndpointSlices have no addresses of loopback")
    # Of the network for measuring other networks (RFC 2544) a part that no other node has here.
    part = (int(machine.prefix[1:], 16) + machine.made) % 2**13
    cidr = f"198.{18 + part // 2**12}.{part % 2**12 // 16}.{part % 16 * 16}/28"
    async with own(given={"network": "address", "pod_cidr": (cidr,)}) as kube:
        yield kube


async def test_a_service_leads_to_the_pods_of_a_deployment(served: Kube) -> None:
    """The example of a web server: each endpoint answers, and those that a smaller Deployment ends are gone."""
    await deploy(served, image=f"file://{WEB}", readinessProbe=asks("/healthz"))
    await expose(served)
    urls = await endpoints(served, lambda ready: len(ready) == 3)
    for name, url in urls.items():
        assert await answer(f"{url}/hello") == (200, f"Hello from {name}: /hello\n")
    await served.kubectl("scale", "deployment/w", "--replicas=1")
    ((name, url),) = (await endpoints(served, lambda ready: len(ready) == 1)).items()
    assert url == urls.pop(name)
    assert await answer(url) == (200, f"Hello from {name}: /\n")
    for name, url in urls.items():
        await served.gone(name)
        with pytest.raises(aiohttp.ClientConnectorError):
            await answer(url)
    await served.kubectl("delete", "service/w", "deployment/w", "--cascade=foreground", "--timeout=60s")
    assert await endpoints(served, lambda ready: not ready) == {}


async def test_a_pod_that_is_not_ready_leaves_its_service(served: Kube) -> None:
    """One fails its readiness probe and is an endpoint no more, though it runs; then it passes again."""
    await deploy(served, image=f"file://{served.machine.web}", readinessProbe=asks("/health"))
    await expose(served)
    urls = await endpoints(served, lambda ready: len(ready) == 3)
    name, url = urls.popitem()
    assert (await answer(f"{url}/health/503"))[0] == 200
    assert await endpoints(served, lambda ready: name not in ready) == urls
    assert (await answer(f"{url}/still/there"))[0] == 200
    assert (await answer(f"{url}/health/200"))[0] == 200
    assert await endpoints(served, lambda ready: name in ready) == {**urls, name: url}
    statuses = [(await served.get(each))["status"]["containerStatuses"][0] for each in (*urls, name)]
    assert [each["restartCount"] for each in statuses] == [0, 0, 0]
    await served.kubectl("delete", "service/w", "deployment/w", "--cascade=foreground", "--timeout=60s")


def asks(path: str) -> dict[str, Any]:
    """A readiness probe."""
    return {"httpGet": {"path": path, "port": "http"}, "periodSeconds": 1, "failureThreshold": 1}


async def deploy(kube: Kube, **container: Any) -> None:
    """Make a Deployment of three pods on the node, by the scheduler of the cluster."""
    labels = {"labels": {"app": "w"}}
    chosen = {"restartPolicy": "Always", "nodeSelector": {"kubernetes.io/hostname": kube.node}}
    pod = kube.pod(spec={**chosen, "terminationGracePeriodSeconds": 1}, ports=[PORT], **container)
    del pod["spec"]["nodeName"]
    spec = {"replicas": 3, "selector": {"matchLabels": labels["labels"]}}
    body = {"metadata": {"name": "w"}, "spec": {**spec, "template": {"metadata": labels, "spec": pod["spec"]}}}
    await kube.admin.create(f"/apis/apps/v1/namespaces/{kube.namespace}/deployments", body)


async def expose(kube: Kube) -> None:
    """Make a Service of the Deployment's pods."""
    spec = {"selector": {"app": "w"}, "ports": [{"port": 80, "targetPort": "http"}]}
    await kube.make("services", {"metadata": {"name": "w"}, "spec": spec})


async def endpoints(kube: Kube, wanted: Callable[[Mapping[str, str]], bool]) -> dict[str, str]:
    """The URLs of the Service's ready endpoints by the names of their pods, once they are as wanted."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{kube.namespace}/endpointslices"
    listed = await kube.admin.get(path)
    slices = {each["metadata"]["name"]: each for each in listed["items"]}
    since = {"watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"]}
    try:
        async with asyncio.timeout(SECONDS), kube.admin.stream(path, since) as events:
            while not wanted(found := _ready(slices.values())):
                event = orjson.loads(await events.readline())
                name = event["object"]["metadata"]["name"]
                slices[name] = event["object"]
                if event["type"] == "DELETED":
                    del slices[name]
            return found
    except TimeoutError:
        raise AssertionError(f"the endpoints never were as wanted; at last: {slices}") from None


def _ready(slices: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return {
        endpoint["targetRef"]["name"]: f"http://{endpoint['addresses'][0]}:{each['ports'][0]['port']}"
        for each in slices
        for endpoint in each["endpoints"] or ()
        if endpoint["conditions"]["ready"]
    }


async def answer(url: str) -> tuple[int, str]:
    """Status and body of what a pod answers."""
    async with aiohttp.ClientSession(trust_env=False) as session, session.get(url) as response:
        return response.status, await response.text()
