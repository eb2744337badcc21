"""Ports that containers declare are accepted and mean nothing yet; a hostPort, which would, is refused by name."""

from __future__ import annotations

import pytest

from tests.conformance.harness import Kube


async def test_container_ports(kube: Kube) -> None:
    await kube.create("print", "x", ports=[{"name": "web", "containerPort": 8080}])
    await kube.phase("Succeeded")


@pytest.mark.later
async def test_host_ports(kube: Kube) -> None:
    await kube.refuses("p", "spec.containers[0].ports", ports=[{"containerPort": 8080, "hostPort": 8080}])
