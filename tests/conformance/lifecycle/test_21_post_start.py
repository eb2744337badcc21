"""postStart runs right after the start, by exec or sleep; its failure kills the container (FailedPostStartHook).

Hooks over http ask the pod's address, where the node has a network.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conformance.harness import SECONDS, Kube
from tests.conformance.reading import begun, state, status


async def test_it_runs_in_the_container(kube: Kube) -> None:
    spec: dict[str, Any] = {"volumes": [{"name": "v", "emptyDir": {}}]}
    hook = {"postStart": {"exec": {"command": ["x", "put", "/v/hook", "hooked"]}}}
    mounts = [{"name": "v", "mountPath": "/v"}]
    await kube.create("await", "/v/hook", "hooked", "print", "seen", lifecycle=hook, spec=spec, volumeMounts=mounts)
    assert await kube.output() == "seen\n"
    await kube.phase("Succeeded")


async def test_the_container_is_not_running_before_it_is_over(timed: Kube) -> None:
    await timed.create("sleep", "1000", lifecycle={"postStart": {"sleep": {"seconds": 20}}})
    async with asyncio.timeout(SECONDS):
        assert await timed.clock.next_sleep(15, 20) == 20
    assert not begun(await timed.get())
    timed.clock.advance(20)
    await timed.ready()


async def test_its_failure_kills(kube: Kube) -> None:
    hook = {"postStart": {"exec": {"command": ["x", "exit", "9"]}}}
    await kube.create("sleep", "1000", lifecycle=hook, spec={"restartPolicy": "Always"})
    pod = await kube.until(lambda pod: status(pod).get("restartCount", 0) >= 1 and "waiting" in state(pod))
    assert status(pod)["lastState"]["terminated"]["exitCode"] == 143
    await kube.event("FailedPostStartHook")
    await kube.event("Killing", part="FailedPostStartHook")


async def test_over_http(net: Kube) -> None:
    """It asks once, and does not wait for a server that is starting: here another container serves already."""
    server = {
        "name": "server",
        "image": f"file://{net.machine.web}",
        "restartPolicy": "Always",
        "ports": [{"name": "web", "containerPort": 8080}],
        "startupProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 1},
    }
    hook = {"postStart": {"httpGet": {"path": "/begun", "port": 8080}}}
    await net.create("sleep", "1000", lifecycle=hook, spec={"initContainers": [server]})
    await net.ready()
    assert "User-Agent: kube-lifecycle/" in await net.logged("GET /begun HTTP/1.1", container="server")


async def test_a_connection_is_no_hook(net: Kube) -> None:
    """The API has it, and no kubelet runs it."""
    hook = {"postStart": {"tcpSocket": {"port": 8080}}}
    await net.refuses("p", "spec.containers[0].lifecycle.postStart.tcpSocket", lifecycle=hook)


async def test_without_a_network_it_is_refused(kube: Kube) -> None:
    hook = {"postStart": {"httpGet": {"port": 8080}}}
    await kube.refuses("p", "spec.containers[0].lifecycle.postStart.httpGet", lifecycle=hook)
