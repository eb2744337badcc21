"""`pods/log` and `nodes/proxy` through the control plane, with a TLS server as the kubelet that checks who calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
from aiohttp import web

from tests.controlplane.client import PODS, STRATEGIC, Api, Kubectl, node, pod
from tests.controlplane.kubelets.stand_in import web_kubelet
from wasmlet.testing import ControlPlane


@attrs.define
class Kubelet:
    """What was asked, and what is to be said."""

    asked: list[str] = attrs.field(factory=list)
    callers: list[str] = attrs.field(factory=list)
    status: int = 200
    more: asyncio.Event = attrs.field(factory=asyncio.Event)
    cut: bool = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peer = request.transport.get_extra_info("peercert")
        self.callers += [value for part in peer["subject"] for key, value in part if key == "commonName"]
        self.asked.append(request.raw_path)
        if self.status != 200:
            return web.Response(status=self.status, text="no such container")
        out = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await out.prepare(request)
        await out.write(b"first\n")
        if "follow=true" in request.query_string:
            await self.more.wait()
            if self.cut:
                request.transport.abort()
                return out
            await out.write(b"second\n")
        await out.write_eof()
        return out


@pytest.fixture
async def kubelet(control_plane: ControlPlane, api: Api, tmp_path: Path) -> AsyncIterator[Kubelet]:
    """A kubelet for node n1 that lets in whom the client CA vouches for, and a pod there."""
    found = Kubelet()
    answers = {"/containerLogs/{namespace}/{pod}/{container}": found.answer, "/stats/summary": found.answer}
    async with web_kubelet(control_plane, tmp_path, answers) as made:
        made["status"]["addresses"].insert(0, {"type": "Hostname", "address": "does-not-resolve.invalid"})
        await api.ok("POST", "/api/v1/nodes", made)
        await api.ok("POST", PODS, pod(nodeName="n1"))
        yield found
        found.more.set()


async def test_the_query_is_passed_on_and_the_caller_is_known(kubelet: Kubelet, api: Api) -> None:
    query = "container=c&tailLines=5&sinceTime=2026-01-01T00%3A00%3A00%2B02%3A00&timestamps=true&pretty=x"
    assert await api("GET", f"{PODS}/p/log?{query}") == (200, "first\n")
    kept = "tailLines=5&sinceTime=2026-01-01T00%3A00%3A00%2B02%3A00&timestamps=true"
    assert kubelet.asked == [f"/containerLogs/default/p/c?{kept}"]
    assert kubelet.callers == ["kube-apiserver-kubelet-client"]


async def test_kubectl_logs(kubelet: Kubelet, kube: Kubectl) -> None:
    assert await kube("logs", "p") == "first\n"
    assert await kube("logs", "p", "-c", "c", "--tail=1") == "first\n"
    process = await kube.start("logs", "-f", "p")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"first\n"
    kubelet.more.set()
    assert await process.stdout.readline() == b"second\n"
    assert await process.wait() == 0


async def test_which_container(kubelet: Kubelet, api: Api) -> None:
    containers = [{"name": name, "image": "img:1"} for name in ("a", "b")]
    await api.ok(
        "POST", PODS, pod("two", nodeName="n1", containers=containers, initContainers=[{**containers[0], "name": "i"}])
    )
    status, answer = await api("GET", f"{PODS}/two/log")
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert "choose one of: [a b] or one of the init containers: [i]" in answer["message"]
    assert (await api("GET", f"{PODS}/two/log?container=i"))[0] == 200
    assert (await api("GET", f"{PODS}/two/log?container=z"))[0] == 400
    chosen = {"metadata": {"annotations": {"kubectl.kubernetes.io/default-container": "b"}}}
    await api.ok("PATCH", f"{PODS}/two", chosen, media=STRATEGIC)
    await api.ok("GET", f"{PODS}/two/log")
    assert kubelet.asked[-1] == "/containerLogs/default/two/b"


@pytest.mark.parametrize("query", ["tailLines=-1", "limitBytes=0", "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z"])
async def test_options_that_make_no_sense(kubelet: Kubelet, api: Api, query: str) -> None:
    status, answer = await api("GET", f"{PODS}/p/log?{query}")
    assert (status, answer["reason"]) == (422, "Invalid")
    assert answer["message"].startswith("PodLogOptions")
    assert kubelet.asked == []


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [(404, 404, "NotFound"), (400, 400, "BadRequest"), (503, 500, "InternalError")],
)
async def test_what_the_kubelet_refuses(kubelet: Kubelet, api: Api, said: int, status: int, reason: str) -> None:
    kubelet.status = said
    found, answer = await api("GET", f"{PODS}/p/log")
    assert (found, answer["reason"]) == (status, reason)
    assert "no such container" in answer["message"]


async def test_a_kubelet_that_is_away(kubelet: Kubelet, api: Api) -> None:
    await api.ok("POST", "/api/v1/nodes", {**node("n2"), "status": {}})
    await api.ok("POST", PODS, pod("nowhere", nodeName="n2"))
    status, answer = await api("GET", f"{PODS}/nowhere/log")
    assert (status, answer["reason"]) == (500, "InternalError")
    assert "no preferred addresses found" in answer["message"]
    endpoint = {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}}
    await api.ok("PATCH", "/api/v1/nodes/n1/status", endpoint, media=STRATEGIC)
    status, answer = await api("GET", f"{PODS}/p/log")
    assert status == 500
    assert "kubelet of node n1 cannot be reached" in answer["message"]
    await api.ok("POST", PODS, pod("waits", nodeSelector={"a": "b"}))
    assert await api("GET", f"{PODS}/waits/log") == (200, "")


async def test_a_log_that_is_cut_does_not_look_complete(kubelet: Kubelet, kube: Kubectl) -> None:
    kubelet.cut = True
    process = await kube.start("logs", "-f", "p")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"first\n"
    kubelet.more.set()
    _, err = await process.communicate()
    assert (process.returncode, bool(err)) == (1, True)


async def test_a_path_of_a_nodes_own_api(
    kubelet: Kubelet, api: Api, kube: Kubectl, control_plane: ControlPlane
) -> None:
    path = "/api/v1/nodes/n1/proxy/stats/summary?only_cpu_and_memory=true"
    assert await kube("get", "--raw", path) == "first\n"
    assert kubelet.asked == ["/stats/summary?only_cpu_and_memory=true"]
    assert (await api("GET", "/api/v1/nodes/n1/proxy/nothing"))[0] == 404
    assert (await api("GET", "/api/v1/nodes/none/proxy/stats/summary"))[0] == 404
    assert (await api("POST", path, {}))[0] == 405
    assert (await api("GET", "/api/v1/nodes/n1/status/more"))[0] == 404
