"""Puts the node's HTTPS API together: the server, who may use it, its certificate, and what it tells of the node."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from wasmlet.kube.keys import Pair
from wasmlet.kubelet.auth import Guard
from wasmlet.kubelet.reviews import ALLOWED_SECONDS, DENIED_SECONDS, TOKEN_SECONDS, Reviews
from wasmlet.kubelet.server import KubeletServer, NodeFacts
from wasmlet.kubelet.sessions import Timeouts
from wasmlet.kubelet.tls import ServerTls, self_signed
from wasmlet.node.config import NodeConfig
from wasmlet.node.lease import DURATION_SECONDS
from wasmlet.node.pods.manager import PodManager
from wasmlet.node.registration import CHECK_SECONDS, REPORT_SECONDS, NodeRegistration
from wasmlet.node.services import NodeServices

log = structlog.get_logger(__name__)


class NodeApi:
    """Serves the API of one node until `stop`.

    Args:
        services: its client asks the API server who may use this API. If `config` names no client CA, the CA by which
            that client trusts the API server is taken for it.
    """

    def __init__(
        self, services: NodeServices, config: NodeConfig, pods: PodManager, registration: NodeRegistration
    ) -> None:
        client, clock = services.client, services.clock
        self._config = config
        self._clock = clock
        self._trusted = config.client_ca_file or client.identity.authority
        self._tls: ServerTls | None = None
        self.until: datetime | None = None
        """When the certificate that the API presents expires."""
        facts = NodeFacts(
            config.node_name,
            services.metrics.text,
            settings(config, self._trusted),
            {"ping": str, "log": str, "syncloop": registration.stuck},
            lambda: registration.capacity,
        )
        guard = Guard(config.node_name, Reviews(client, clock), clock)
        timeouts = Timeouts(idle=config.streaming_connection_idle_timeout)
        self._server = KubeletServer(pods, services.provider, guard, facts, clock, timeouts=timeouts)

    async def start(self, ip: str) -> int:
        """Listen, at first with a self-signed certificate. Returns the port.

        Raises:
            ConfigError: a port cannot be had, or the client CA cannot be read.
        """
        if self._trusted is None:
            log.warning(
                "the node's API takes tokens and no client certificates, so kubectl logs will fail: "
                "give the CA of the cluster's clients with --client-ca-file"
            )
        self._tls = await asyncio.to_thread(ServerTls, self._trusted)
        await self.show(await asyncio.to_thread(self_signed, self._config.node_name, ip, self._clock.now()))
        await self._server.start(ip, self._config.port, self._tls.context)
        if self._config.healthz_port:
            await self._server.start_health(self._config.healthz_port)
        return self._server.port

    async def show(self, pem: bytes) -> None:
        """Use this key and certificate from the next connection on."""
        assert self._tls is not None
        # Not in a thread: the key is loaded a moment after the certificate, and a handshake in between would fail.
        self._tls.show(pem)
        self.until = Pair.parse(pem).not_after

    async def stop(self) -> None:
        await self._server.stop()


def settings(config: NodeConfig, trusted: object) -> Mapping[str, Any]:
    """What `/configz` shows: the node's settings that a kubelet has too, under a kubelet's names."""
    return {
        "port": config.port,
        "healthzPort": config.healthz_port,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": _duration(TOKEN_SECONDS)},
            "x509": {"clientCAFile": str(trusted) if isinstance(trusted, Path) else ""},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {
                "cacheAuthorizedTTL": _duration(ALLOWED_SECONDS),
                "cacheUnauthorizedTTL": _duration(DENIED_SECONDS),
            },
        },
        "rotateCertificates": True,
        "serverTLSBootstrap": config.serving_csr,
        "maxPods": config.max_pods,
        "streamingConnectionIdleTimeout": _duration(config.streaming_connection_idle_timeout),
        "nodeStatusUpdateFrequency": _duration(CHECK_SECONDS),
        "nodeStatusReportFrequency": _duration(REPORT_SECONDS),
        "nodeLeaseDurationSeconds": DURATION_SECONDS,
        "registerNode": True,
        "enableDebuggingHandlers": True,
        "enableSystemLogHandler": False,
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
    }


def _duration(seconds: float) -> str:
    """As Go writes durations."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
