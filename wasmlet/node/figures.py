"""Metrics that are made at each scrape: requests to the API server, certificates, and the provider's own figures.

`wasmlet.node.metrics` has the metrics that are counted as things happen. Both are in one registry.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from urllib.parse import urlsplit

import attrs
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from wasmlet.clock import Clock
from wasmlet.failures import described
from wasmlet.kube import Client
from wasmlet.model.pod import Raw
from wasmlet.model.quantity import Quantity
from wasmlet.provider import Figure, Provider

log = structlog.get_logger(__name__)

Until = Callable[[], datetime | None]
"""When a certificate ends; None where there is none."""


@attrs.frozen(kw_only=True)
class Figures:
    """A collector for a registry of prometheus_client.

    Attributes:
        client: shares its counts with all clients of the node.
        allocatable: what pods may have of the node, resource name to quantity.
        client_until, server_until: the end of the node's client certificate and of the one that its API shows.
    """

    version: str
    provider: Provider
    client: Client
    clock: Clock
    allocatable: Callable[[], Raw]
    client_until: Until
    server_until: Until

    def collect(self) -> Iterator[Metric]:
        """All of them now."""
        labels = {"version": self.version, "provider": self.provider.name, "python": platform.python_version()}
        yield InfoMetricFamily("wasmlet_build", "The version of wasmlet, of its provider and of Python.", labels)
        most = Quantity.parse(self.allocatable().get("pods", 0)).units()
        yield GaugeMetricFamily("wasmlet_pods_allocatable", "How many pods the node may have.", most)
        yield _requests(urlsplit(self.client.identity.server).netloc, self.client.answered)
        for side, until in (("client", self.client_until()), ("server", self.server_until())):
            left = math.inf if until is None else (until - self.clock.now()).total_seconds()
            yield GaugeMetricFamily(
                f"kubelet_certificate_manager_{side}_ttl_seconds",
                f"Seconds until the {side} certificate ends, negative when it has; +Inf where there is none.",
                left,
            )
        yield from self._provider()

    def _provider(self) -> Iterator[Metric]:
        """The provider's own figures. There are none if its call fails or one of them is not valid."""
        try:
            found = [_family(figure) for figure in self.provider.figures()]
        except Exception as error:
            log.warning("the provider's figures cannot be had", **described(error))
            return
        yield from found


def _requests(host: str, answered: Mapping[tuple[str, str], int]) -> Metric:
    family = CounterMetricFamily(
        "rest_client_requests",
        "Requests to the API server by status code (<error> without an answer), method and host.",
        labels=["code", "method", "host"],
    )
    for (method, code), count in sorted(answered.items()):
        family.add_metric([code, method, host], count)
    return family


def _family(figure: Figure) -> Metric:
    names: Sequence[str] = sorted(figure.labels)
    family = GaugeMetricFamily(f"wasmlet_{figure.name}", figure.text, labels=names)
    family.add_metric([figure.labels[name] for name in names], figure.value)
    return family
