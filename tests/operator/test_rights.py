"""The operator with the rights that its deployment gives it; see `tests/operator/test_pools.py` for a real cluster."""

from __future__ import annotations

import pytest

from tests.conftest import CompileGuest
from tests.guests import build
from tests.operator.harness import NODES, Fleet

pytestmark = [pytest.mark.needs_root("the pods of nodes are put into namespaces"), pytest.mark.timeout(600)]


@pytest.fixture
def guest(compile_guest: CompileGuest) -> str:
    """An image that sleeps, with arguments."""
    return f"file://{build('driver', compile_guest)}"


async def test_the_rights_of_the_deployment_are_enough(fleet: Fleet, guest: str) -> None:
    async with fleet.account() as kubeconfig:
        operator = await fleet.operator(kubeconfig=kubeconfig)
        await fleet.pool(replicas=2, template={"metadata": {"labels": {"zone": "a"}}})
        await fleet.ready(2)
        await fleet.deployment("web", 2, guest)
        await fleet.change(replicas=1)
        await fleet.ready(1)
        await fleet.change(capacity={"pods": 200})
        await fleet.until(NODES, lambda found: found["edge-0"]["status"]["allocatable"]["pods"] == "200")
        await fleet.ready(1)
        await fleet.remove()
        await fleet.gone()
        assert not [line for line in operator.said() if line["level"] in ("warning", "error")]
