"""The Metrics API: what a kubelet says becomes what kubectl top shows, and nobody asks a kubelet for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
from aiohttp import web

from tests.controlplane.client import PODS, Api, Kubectl, Object, open_api, pod
from tests.controlplane.kubelets.stand_in import web_kubelet
from wasmlet.controlplane.kubelets.samples import NODE, Sample, read, use
from wasmlet.controlplane.kubelets.usage import FRESH, SETTLE, STALE
from wasmlet.testing import ControlPlane, FakeClock

METRICS = "/apis/metrics.k8s.io/v1beta1"


@attrs.define
class Kubelet:
    """What it counts, and how often it was asked."""

    clock: FakeClock
    asked: int = 0
    status: int = 200
    cores: float = 0.25
    started: float = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.status != 200:
            return web.Response(status=self.status)
        now = self.clock.now().timestamp()
        used, at = self.cores * (now - self.started), f"{now * 1000:.0f}"
        who = '{container="c",namespace="default",pod="p"}'
        lines = [
            f"container_start_time_seconds{who} {self.started}",
            f"container_cpu_usage_seconds_total{who} {used} {at}",
            f"container_memory_working_set_bytes{who} {3 * 2**20} {at}",
            f"node_cpu_usage_seconds_total {2 * used} {at}",
            f"node_memory_working_set_bytes {2**30} {at}",
            "scrape_error 0",
        ]
        return web.Response(text="\n".join(lines) + "\n")


@pytest.fixture
async def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def plane(clock: FakeClock) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(clock=clock, node_monitor_grace=None) as found:
        yield found


@pytest.fixture
async def api(plane: ControlPlane) -> AsyncIterator[Api]:
    async with open_api(plane, plane.kubeconfig) as found:
        yield found


@pytest.fixture
async def kubelet(plane: ControlPlane, clock: FakeClock, api: Api, tmp_path: Path) -> AsyncIterator[Kubelet]:
    """A kubelet of node n1 that lets in whom the client CA vouches for, and a pod there."""
    found = Kubelet(clock, started=clock.now().timestamp() - 1000)
    async with web_kubelet(plane, tmp_path, {"/metrics/resource": found.answer}) as made:
        await api.ok("POST", "/api/v1/nodes", made)
        labelled: Object = {"metadata": {"name": "p", "labels": {"app": "web"}}}
        await api.ok("POST", PODS, pod(nodeName="n1") | labelled)
        yield found


async def settled(clock: FakeClock, api: Api, path: str) -> Object:
    """The answer to a first question, which takes two scrapes."""
    task = asyncio.create_task(api.ok("GET", METRICS + path))
    await clock.next_sleep(SETTLE, SETTLE)
    clock.advance(SETTLE)
    answer: Object = await task
    return answer


async def test_what_is_used_and_how_often_that_is_asked(clock: FakeClock, api: Api, kubelet: Kubelet) -> None:
    assert kubelet.asked == 0
    found = await settled(clock, api, "/nodes")
    (item,) = found["items"]
    assert (found["kind"], item["kind"], item["metadata"]["name"]) == ("NodeMetricsList", "NodeMetrics", "n1")
    assert (item["usage"], item["window"]) == ({"cpu": "500000000n", "memory": "1048576Ki"}, "2.000s")
    assert kubelet.asked == 2
    clock.advance(FRESH - 1)
    (item,) = (await api.ok("GET", f"{METRICS}/pods"))["items"]
    assert kubelet.asked == 2
    assert item["containers"] == [{"name": "c", "usage": {"cpu": "250000000n", "memory": "3072Ki"}}]
    assert (item["metadata"]["namespace"], item["metadata"]["labels"]) == ("default", {"app": "web"})
    kubelet.cores = 0.5
    clock.advance(6)
    asked = [api.ok("GET", f"{METRICS}/namespaces/default/pods/p") for _ in range(5)]
    item, *_ = await asyncio.gather(*asked)
    assert (item["kind"], item["window"]) == ("PodMetrics", "15.000s")
    assert kubelet.asked == 3
    clock.advance(STALE + 1)
    await settled(clock, api, "/nodes/n1")
    assert kubelet.asked == 5


async def test_a_kubelet_that_says_nothing_is_left_out_and_left_alone(api: Api, kubelet: Kubelet) -> None:
    kubelet.status = 500
    assert (await api.ok("GET", f"{METRICS}/nodes"))["items"] == []
    status, answer = await api("GET", f"{METRICS}/nodes/n1")
    assert (status, answer["message"]) == (404, 'nodes.metrics.k8s.io "n1" not found')
    status, answer = await api("GET", f"{METRICS}/namespaces/default/pods/p")
    assert (status, answer["message"]) == (404, 'pods.metrics.k8s.io "default/p" not found')
    assert kubelet.asked == 1


async def test_selectors_and_rights(clock: FakeClock, api: Api, plane: ControlPlane, kubelet: Kubelet) -> None:
    assert (await api.ok("GET", f"{METRICS}/namespaces/kube-system/pods"))["items"] == []
    assert (await api.ok("GET", f"{METRICS}/pods?labelSelector=app%3Dother"))["items"] == []
    assert kubelet.asked == 0
    assert len((await settled(clock, api, "/pods?labelSelector=app%3Dweb"))["items"]) == 1
    assert (await api("GET", f"{METRICS}/pods?labelSelector=%21%21"))[0] == 400
    assert (await api("POST", f"{METRICS}/nodes", {}))[0] == 405
    async with open_api(plane, plane.user_kubeconfig("alice")) as alice:
        assert (await alice("GET", f"{METRICS}/nodes"))[0] == 403


async def test_kubectl_top(
    clock: FakeClock, plane: ControlPlane, kubectl: Path, tmp_path: Path, api: Api, kubelet: Kubelet
) -> None:
    await settled(clock, api, "/nodes")
    kube = Kubectl(kubectl, plane.kubeconfig, tmp_path)
    head, line = (await kube("top", "nodes")).splitlines()
    assert head.split() == ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]
    assert line.split() == ["n1", "500m", "12%", "1024Mi", "25%"]
    head, line = (await kube("top", "pods", "--containers")).splitlines()
    assert line.split() == ["p", "c", "250m", "3Mi"]
    assert "p" in await kube("top", "pod", "p")


NOW = 1000.0


@pytest.mark.parametrize(
    ("before", "after", "cores"),
    [
        (Sample(10, 90, 1, 5), Sample(20, 100, 1, 5), 1.0),
        (None, Sample(20, 100, 1, 60), 0.5),  # it is new: since it started
        (Sample(90, 90, 1, 5), Sample(1, 100, 1, 95), 0.2),  # it was started again
        (None, Sample(20, 100, 1), None),
        (Sample(20, 100, 1), Sample(20, 100, 1), None),  # counted at the same time
        (Sample(20, 90, 1), Sample(10, 100, 1), None),  # it was started again, and nobody says when
    ],
)
def test_use_is_a_difference(before: Sample | None, after: Sample, cores: float | None) -> None:
    found = use(before, after)
    assert (None if found is None else found.cores) == cores


def test_an_answer_is_read_as_far_as_it_goes() -> None:
    text = 'node_cpu_usage_seconds_total 7\nnode_memory_working_set_bytes 8\nother{a="b"} 1\n'
    assert read(text, NOW) == {NODE: Sample(7.0, NOW, 8)}
    with pytest.raises(ValueError, match=r"."):
        read("not { metrics", NOW)
