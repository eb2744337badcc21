"""Where the nodes of checks are made, and what they run."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import yaml

import wasmlet
from tests.conformance import runtimes
from tests.conformance.reading import Raw
from tests.node.real import RealPlane
from tests.shared.machine import may_limit
from wasmlet.clock import Clock
from wasmlet.kube import Client, errors
from wasmlet.runtime import RuntimeProvider
from wasmlet.testing import ControlPlane


@attrs.define
class Machine:
    """Where nodes are made: an API server, an administrator's client of it, the guests, and a directory."""

    plane: ControlPlane | RealPlane
    admin: Client
    kubectl: Path
    driver: Path
    web: Path
    directory: Path
    to_nodes: ssl.SSLContext
    """With the administrator's certificate, for a node's own API."""
    prefix: str
    """What names are made of, so that runs side by side do not meet."""
    provider: type[RuntimeProvider]
    """With the engine that runs the guests."""
    handler: str = ""
    """Of those that a node offers, the one that runs pods without a RuntimeClass; "": as it is with users."""
    runtime: str = runtimes.LOCAL
    """Where pods run (`runtimes`)."""
    made: int = 0

    @property
    def oom_kills(self) -> bool:
        """Whether the kernel holds the guests' limits of memory, as it does for containers; else their engine does."""
        return may_limit("memory") and not self.default_handler.endswith("-dense")

    @property
    def default_handler(self) -> str:
        """What pods without a RuntimeClass get."""
        return self.handler or next(iter(self.provider().engines[0].handlers))

    @property
    def real(self) -> bool:
        """Whether the API server is a cluster's."""
        return isinstance(self.plane, RealPlane)

    def name(self) -> str:
        """A name that nobody has."""
        self.made += 1
        return f"{self.prefix}-{self.made}"

    @asynccontextmanager
    async def node(
        self,
        name: str,
        *,
        kind: type[RuntimeProvider] | None = None,
        clock: Clock | None = None,
        node_clock: Clock | None = None,
        given: Raw | None = None,
        **settings: Any,
    ) -> AsyncIterator[wasmlet.Node]:
        """A node while the context is open.

        Args:
            kind: its provider where it is not simply the engine's.
            clock: the provider's; `node_clock` is the node loop's.
            given: settings of the provider.
            settings: of the node.
        """
        options = {"allow_local_modules": True, "module_dir": self.driver.parent, "shim_idle_exit": 1.0}
        provider = self._provider(kind or self.provider, options | (given or {}), clock)
        defaults = {
            "kubeconfig": await asyncio.to_thread(self.plane.node_kubeconfig, name),
            "node_name": name,
            "node_ip": "127.0.0.1",
            "port": 0,
            "client_ca_file": self.plane.client_ca_file,
            "state_dir": self.directory / name,
            "serving_csr": False,
            "drain_on_exit": True,
        }
        config = wasmlet.NodeConfig(**(defaults | settings))
        async with AsyncExitStack() as stack:
            driven: wasmlet.Provider = provider
            if self.runtime != runtimes.LOCAL:
                agent = runtimes.behind_an_agent(self.runtime, lambda: provider, self.directory / f"{name}-a")
                driven = await stack.enter_async_context(agent)
            yield await stack.enter_async_context(wasmlet.Node(driven, config, clock=node_clock))

    def _provider(self, kind: type[RuntimeProvider], settings: Raw, clock: Clock | None) -> RuntimeProvider:
        """A provider of pods, with the handler of its engine that is asked for."""
        provider = kind(kind.Config(**settings), clock=clock)
        if self.handler:
            engine = provider.engines[0]
            engine.handlers = {self.handler: engine.handlers[self.handler], **engine.handlers}
        return provider

    async def forget(self, node: str) -> None:
        """Remove a node's objects, which outlive it."""
        for path in (f"/api/v1/nodes/{node}", f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}"):
            try:
                await self.admin.delete(path)
            except errors.ObjectNotFound:
                continue


def administrator(kubeconfig: Path, directory: Path) -> ssl.SSLContext:
    """The client certificate of a kubeconfig, for servers that show any certificate."""
    user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
    pem = directory / "administrator.pem"
    pem.write_bytes(b"".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(pem)
    return context
