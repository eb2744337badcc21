"""A host of agents that run nothing: what each agent costs the host while nothing happens.

The host uses an administrator's credentials.
"""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any

from wasmlet_remote.host.manifests import token

from benchmarks.agents.idle import NAMESPACE, Size, plane, reached, resting
from benchmarks.api import Api
from benchmarks.burst import Figures
from benchmarks.processes import started
from benchmarks.report import Progress
from wasmlet.kube import paths

AGENTS = 50


async def hosted(directory: Path, size: Size, progress: Progress) -> Figures:
    """Figures of the host: MiB with and without agents, CPU while nothing happens, seconds until all are Ready."""
    async with plane(directory, "host") as (said, api):
        credentials = (said["kubeconfig"], said["client_ca_file"], str(directory / "host"))
        async with started("host", *credentials, NAMESPACE) as host:
            empty = host.rss()
            with progress.step(f"{size.count} agents join"):
                began = time.monotonic()
                text = await _token(api, size.count)
                arguments = (host.said["url"], text, str(directory / "agents"), str(size.count))
                async with started("joined", *arguments):

                    async def look() -> int:
                        return sum(map(_ready, (await api.call("GET", paths.NODES))["items"]))

                    await reached(size.count, look, "nodes that are Ready")
                    return await resting(host, size, empty, time.monotonic() - began)


async def _token(api: Api, uses: int) -> str:
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    manifest, text = token(NAMESPACE, names="*", uses=uses, expires=until)
    await api.call("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", manifest)
    return text


def _ready(node: Any) -> bool:
    conditions = node["status"].get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
