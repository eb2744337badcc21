"""A process that gives pods addresses by CNI, for tests that kill it.

    python -m tests.runtime.network.cni.adding DIRECTORY CONF_DIR PLUGINS NAME ...

It adds a pod of each name, all at once, and prints the name when that is done. It then waits for its end.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from wasmlet.clock import SystemClock
from wasmlet.model.pod import PodKey
from wasmlet.runtime.network.cni import CniNetwork
from wasmlet.runtime.network.network import NetworkRequest
from wasmlet.runtime.network.plugins import Plugins


async def main(directory: str, conf: str, plugins: str, *names: str) -> None:
    network = CniNetwork(Path(directory), Path(conf), Plugins([Path(plugins)], SystemClock()), lambda: ())

    async def add(name: str) -> None:
        await network.add(NetworkRequest(PodKey("ns", name, f"uid-{name}")))
        print(name, flush=True)

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(add(name))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
