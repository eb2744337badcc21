"""An operator and the pools that it keeps, while nothing happens: what it takes, and what each pool adds.

The API server is an embedded one in a process of its own. Its controllers make the pods of the nodes, and nothing runs
them.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import attrs
import yaml

from benchmarks.api import Api, opened
from benchmarks.burst import Figures
from benchmarks.processes import BenchmarkFailed, started
from benchmarks.report import Progress
from wasmlet.kube import load_identity
from wasmlet.operator.pool import POOLS

MOST = 50
NAMESPACE = "wasmlet"
SETTLED_SECONDS = 180.0
REST_SECONDS = 3.0
LOOK_SECONDS = 0.2
CRD = Path(__file__).parents[1] / "charts/wasmlet-operator/crds/wasmnodepools.yaml"


@attrs.frozen
class Size:
    """How many pools there are, and for how many seconds nothing happens."""

    pools: int
    hold: float


async def pools(directory: Path, size: Size, progress: Progress) -> Figures:
    """MiB with and without pools, CPU while nothing happens, seconds until all have a status."""
    async with (
        started("plane", str(directory / "plane"), "operator") as plane,
        opened(await load_identity(Path(plane.said["kubeconfig"]))) as api,
    ):
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        definition = yaml.safe_load(await asyncio.to_thread(CRD.read_text))
        await api.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
        async with started("operator", plane.said["kubeconfig"], NAMESPACE) as operator:
            await _settled(api, 0)
            await asyncio.sleep(REST_SECONDS)
            empty = operator.rss()
            with progress.step(f"{size.pools} pools"):
                began = time.monotonic()
                for number in range(size.pools):
                    await api.call("POST", POOLS, _pool(f"pool-{number}"))
                await _settled(api, size.pools)
                settled = time.monotonic() - began
                await asyncio.sleep(REST_SECONDS)
                full, cpu, rested = operator.rss(), operator.cpu(), time.monotonic()
                await asyncio.sleep(size.hold)
                used = 100 * (operator.cpu() - cpu) / max(time.monotonic() - rested, 1e-9)
        return {
            "pools": size.pools,
            "all_settled": settled,
            "rss_mib_empty": empty,
            "rss_mib": full,
            "rss_mib_per_pool": (full - empty) / size.pools,
            "idle_cpu_percent": used,
        }


def _pool(name: str) -> dict[str, object]:
    spec = {"replicas": 1}
    return {"apiVersion": "wasmlet.dev/v1alpha1", "kind": "WasmNodePool", "metadata": {"name": name}, "spec": spec}


async def _settled(api: Api, count: int) -> None:
    """Wait until so many pools say that their node has a pod.

    Raises:
        BenchmarkFailed: they do not within `SETTLED_SECONDS`.
    """
    found = -1
    try:
        async with asyncio.timeout(SETTLED_SECONDS):
            while found < count:
                await asyncio.sleep(LOOK_SECONDS)
                items = (await api.call("GET", POOLS))["items"]
                found = sum((item.get("status") or {}).get("replicas") == 1 for item in items)
    except TimeoutError:
        raise BenchmarkFailed(
            f"expected {count} pools with a node each within {SETTLED_SECONDS:g} s, found {found}"
        ) from None


def columns(found: Figures) -> dict[str, dict[str, float]]:
    """The figures for a table."""
    return {
        "RSS without pools, MiB": {"operator": found["rss_mib_empty"]},
        "RSS, MiB": {"operator": found["rss_mib"]},
        "RSS, MiB a pool": {"operator": found["rss_mib_per_pool"]},
        "idle, % of a core": {"operator": found["idle_cpu_percent"]},
        "until all have a status, s": {"operator": found["all_settled"]},
    }
