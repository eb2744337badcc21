"""An operator of many pools, while nothing happens: its memory and CPU, and what each pool adds.

The control plane's controllers create the pods of the nodes, and nothing runs these pods.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import yaml

from benchmarks.agents.idle import NAMESPACE, REST_SECONDS, Size, plane, reached, resting
from benchmarks.burst import Figures
from benchmarks.processes import started
from benchmarks.report import Progress
from wasmlet.operator.pool import POOLS

MOST = 50
CRD = Path(__file__).parents[2] / "charts/wasmlet-operator/crds/wasmnodepools.yaml"


async def pools(directory: Path, size: Size, progress: Progress) -> Figures:
    """The operator's memory with and without pools, its idle CPU, and the seconds until all pools have a pod."""
    async with plane(directory, "operator") as (said, api):
        definition = yaml.safe_load(await asyncio.to_thread(CRD.read_text))
        await api.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)

        async def look() -> int:
            items = (await api.call("GET", POOLS))["items"]
            return sum((item.get("status") or {}).get("replicas") == 1 for item in items)

        async with started("operator", said["kubeconfig"], NAMESPACE) as operator:
            await api.call("POST", POOLS, _pool("first"))  # with one pool kept, it is up and has loaded its code
            await reached(1, look, "pool with a node")
            await asyncio.sleep(REST_SECONDS)
            empty = operator.rss()
            with progress.step(f"{size.count} pools"):
                began = time.monotonic()
                for number in range(size.count):
                    await api.call("POST", POOLS, _pool(f"pool-{number}"))
                await reached(size.count + 1, look, "pools with a node each")
                return await resting(operator, size, empty, time.monotonic() - began)


def _pool(name: str) -> dict[str, object]:
    spec = {"replicas": 1}
    return {"apiVersion": "wasmlet.dev/v1alpha1", "kind": "WasmNodePool", "metadata": {"name": name}, "spec": spec}
