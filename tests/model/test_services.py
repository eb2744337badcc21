"""The variables that say where services are."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model.manifests import pod, service
from wasmlet.model.inputs import Inputs
from wasmlet.model.services import service_variables

KUBERNETES = service("kubernetes", "10.0.0.1", {"name": "https", "port": 443}, namespace="default")


def variables(*services: dict[str, Any], **spec: Any) -> dict[str, str]:
    return service_variables(pod(**spec), Inputs(services=services))


def test_all_the_variables_of_one_service() -> None:
    redis = service(
        "redis-main",
        "10.0.0.11",
        {"name": "client-port", "port": 6379, "protocol": "TCP"},
        {"name": "gossip", "port": 7946, "protocol": "UDP"},
    )
    assert variables(redis) == {
        "REDIS_MAIN_SERVICE_HOST": "10.0.0.11",
        "REDIS_MAIN_SERVICE_PORT": "6379",
        "REDIS_MAIN_SERVICE_PORT_CLIENT_PORT": "6379",
        "REDIS_MAIN_SERVICE_PORT_GOSSIP": "7946",
        "REDIS_MAIN_PORT": "tcp://10.0.0.11:6379",
        "REDIS_MAIN_PORT_6379_TCP": "tcp://10.0.0.11:6379",
        "REDIS_MAIN_PORT_6379_TCP_PROTO": "tcp",
        "REDIS_MAIN_PORT_6379_TCP_PORT": "6379",
        "REDIS_MAIN_PORT_6379_TCP_ADDR": "10.0.0.11",
        "REDIS_MAIN_PORT_7946_UDP": "udp://10.0.0.11:7946",
        "REDIS_MAIN_PORT_7946_UDP_PROTO": "udp",
        "REDIS_MAIN_PORT_7946_UDP_PORT": "7946",
        "REDIS_MAIN_PORT_7946_UDP_ADDR": "10.0.0.11",
    }


def test_an_ipv6_address_is_bracketed_in_urls_only() -> None:
    found = variables(service("six", "fd00::1"))
    assert found["SIX_PORT"] == "tcp://[fd00::1]:80"
    assert found["SIX_SERVICE_HOST"] == found["SIX_PORT_80_TCP_ADDR"] == "fd00::1"


@pytest.mark.parametrize("ip", ["None", ""])
def test_headless_and_external_services_have_none(ip: str) -> None:
    assert variables(service("headless", ip)) == {}


def test_only_the_pods_namespace_and_kubernetes() -> None:
    found = variables(
        service("mine"), service("theirs", namespace="other"), service("x", namespace="default"), KUBERNETES
    )
    hosts = {name for name in found if name.endswith("_SERVICE_HOST")}
    assert hosts == {"MINE_SERVICE_HOST", "KUBERNETES_SERVICE_HOST"}


def test_without_links_kubernetes_is_left() -> None:
    found = variables(service("mine"), KUBERNETES, enableServiceLinks=False)
    assert {name for name in found if name.endswith("_SERVICE_HOST")} == {"KUBERNETES_SERVICE_HOST"}


@pytest.mark.parametrize("first", [True, False])
def test_a_service_of_the_name_kubernetes_hides_the_other(first: bool) -> None:
    own = service("kubernetes", "10.9.9.9")
    both = (own, KUBERNETES) if first else (KUBERNETES, own)
    assert variables(*both)["KUBERNETES_SERVICE_HOST"] == "10.9.9.9"
    assert variables(*both, enableServiceLinks=False)["KUBERNETES_SERVICE_HOST"] == "10.0.0.1"
