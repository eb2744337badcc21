"""A pod's hosts, host name and resolv.conf."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model.manifests import pod
from wasmlet.model.hosts import Dns, hostname, hosts_file, resolv_conf
from wasmlet.model.inputs import Inputs

NODE = "# by hand\nnameserver 192.0.2.1\nsearch old.test\nsearch corp.test.\noptions timeout:1\n"
CLUSTER = Dns(["10.0.0.10"], "cluster.local", NODE)


def made(**spec: Any) -> Any:
    return pod({"name": "main"}, **spec)


@pytest.mark.parametrize(
    ("spec", "cluster", "text"),
    [
        (
            {},
            CLUSTER,
            "nameserver 10.0.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local corp.test\n"
            "options ndots:5\n",
        ),
        ({}, Dns(node=NODE), "nameserver 192.0.2.1\nsearch corp.test\noptions timeout:1\n"),
        ({"dnsPolicy": "Default"}, CLUSTER, "nameserver 192.0.2.1\nsearch corp.test\noptions timeout:1\n"),
        ({"dnsPolicy": "None"}, CLUSTER, ""),
        (
            {
                "dnsPolicy": "ClusterFirst",
                "dnsConfig": {
                    "nameservers": ["10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.13"],
                    "searches": ["cluster.local", "more.test"],
                    "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}],
                },
            },
            CLUSTER,
            "nameserver 10.0.0.10\nnameserver 10.0.0.11\nnameserver 10.0.0.12\n"
            "search shop.svc.cluster.local svc.cluster.local cluster.local corp.test more.test\n"
            "options ndots:1 edns0\n",
        ),
    ],
)
def test_resolv_conf(spec: dict[str, Any], cluster: Dns, text: str) -> None:
    assert resolv_conf(made(**spec), cluster) == text


def test_host_names() -> None:
    assert hostname(made()) == made().name
    assert hostname(made(hostname="front")) == "front"
    assert hostname(made(hostname="a" * 62 + "-" + "b" * 10)) == "a" * 62


def test_hosts() -> None:
    inputs = Inputs(node_ips=["192.0.2.7", "2001:db8::7"])
    lines = hosts_file(made(hostname="front"), inputs, Dns()).splitlines()
    assert lines[0] == "# Kubernetes-managed hosts file."
    assert lines[1] == "127.0.0.1\tlocalhost"
    assert lines[-2:] == ["192.0.2.7\tfront", "2001:db8::7\tfront"]
    lines = hosts_file(made(hostname="front", subdomain="web"), inputs, Dns(), ["10.1.0.4"]).splitlines()
    assert lines[-1] == "10.1.0.4\tfront.web.shop.svc.cluster.local\tfront"
    aliases = [{"ip": "10.0.0.9", "hostnames": ["db", "db.test"]}, {"ip": "10.0.0.8"}]
    text = hosts_file(made(hostAliases=aliases), inputs, Dns())
    assert text.endswith("\n\n# Entries added by HostAliases.\n10.0.0.9\tdb\tdb.test\n10.0.0.8\n")
