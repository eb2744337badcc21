"""A plugin that listens, and providers that drive it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from wasmlet_remote.interlink import InterlinkConfig, PluginProvider

from tests.remote.interlink.plugin import StrictPlugin
from wasmlet import LogOptions, NodeContext, Pod, PodStatus
from wasmlet.testing import FakeClock


def a_pod(uid: str = "u-1", *, restart: str = "Never") -> Pod:
    metadata = {"name": f"pod-{uid}", "namespace": "team", "uid": uid}
    containers = [{"name": "main", "image": "tool:v1", "command": ["run"]}]
    return Pod({"metadata": metadata, "spec": {"containers": containers, "restartPolicy": restart}})


class Stand:
    """A plugin that listens, and the state directory of its node."""

    def __init__(self, far: StrictPlugin, url: str, state: Path) -> None:
        self.far = far
        self.url = url
        self.state = state
        self.clock = FakeClock()

    @asynccontextmanager
    async def provider(self, **settings: Any) -> AsyncIterator[PluginProvider]:
        """A provider that is started, as a node loop has it."""
        found = PluginProvider(InterlinkConfig(endpoint=self.url, **settings), clock=self.clock)
        await found.start(NodeContext("n", "127.0.0.1", 10, self.state))
        try:
            yield found
        finally:
            await found.stop()

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.far.asked]


def state_of(status: PodStatus) -> Any:
    return status.containers[0].state


async def log_of(found: PluginProvider, pod: Pod, **options: Any) -> bytes:
    async with aclosing(found.logs(pod.key, "main", LogOptions(**options))) as pieces:
        return b"".join([piece async for piece in pieces])
