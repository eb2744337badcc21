"""A host and agents that join it, as processes: pods run, streams work, and either side may be killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.node.cluster import running
from tests.remote.hosts import Stand, ready, stand


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as found:
        yield found


async def test_an_agent_joins_and_its_pods_run(there: Stand, kubectl: Path) -> None:
    there.grant("edge-1")
    await there.start_host()
    await there.agent("edge-1", await there.token(names="edge-*", pool="shop"))
    node = await there.node("edge-1", ready("True"))
    assert node["metadata"]["labels"]["wasmlet.dev/pool"] == "shop"
    container = {"name": "c", "image": "x", "command": ["script"], "args": ["print", "hello"]}
    await there.cluster.create(containers=[container], nodeName="edge-1")
    await there.cluster.until(running)
    command = (str(kubectl), "--kubeconfig", str(there.plane.kubeconfig))
    for args, said in ((("logs", "p"), b"hello\n"), (("exec", "p", "--", "echo", "hi"), b"hi\n")):
        process = await asyncio.create_subprocess_exec(*command, *args, stdout=asyncio.subprocess.PIPE)
        assert (await process.communicate())[0] == said
    await there.cluster.delete()
    await there.cluster.until_gone()
