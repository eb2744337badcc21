"""Variables that tell a container its limits and requests, with divisors, or what the node can give without a limit."""

from __future__ import annotations

from typing import Any

from tests.conformance.harness import Kube
from wasmlet.model.quantity import Quantity


def field(name: str, resource: str, divisor: str = "0") -> dict[str, Any]:
    return {"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}}}


async def test_what_a_container_has(kube: Kube) -> None:
    env = [
        field("CPU", "limits.cpu"),
        field("CPU_MILLI", "limits.cpu", "1m"),
        field("MEMORY", "limits.memory"),
        field("MEMORY_MI", "limits.memory", "1Mi"),
        field("REQUEST", "requests.cpu", "1m"),
    ]
    resources = {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "10m", "memory": "1Mi"}}
    await kube.create(*(w for e in env for w in ("env", e["name"])), env=env, resources=resources)
    lines = (await kube.output()).split()
    assert lines == ["CPU=2", "CPU_MILLI=1500", "MEMORY=67108864", "MEMORY_MI=64", "REQUEST=10"]


async def test_without_a_limit_it_is_the_nodes(kube: Kube) -> None:
    allocatable = (await kube.node_object())["status"]["allocatable"]
    env = [field("CPU", "limits.cpu"), field("MEMORY", "limits.memory")]
    await kube.create("env", "CPU", "env", "MEMORY", env=env)
    cpu, memory = (Quantity.parse(allocatable[name]).units() for name in ("cpu", "memory"))
    assert await kube.output() == f"CPU={cpu}\nMEMORY={memory}\n"
