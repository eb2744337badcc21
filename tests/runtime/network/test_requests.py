"""What a manifest asks of the network: who gets one, what is refused by name, and what a container is granted."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from tests.runtime.harness import pod_of
from wasmlet.errors import Refused
from wasmlet.model.hosts import Dns, resolv_conf
from wasmlet.model.pod import Pod
from wasmlet.runtime.network import egress, granting
from wasmlet.runtime.network.granting import NameFiles, grant_of
from wasmlet.runtime.network.network import HostPort, PodNetwork
from wasmlet.runtime.network.node_network import NO_NETWORK, NodeNetwork
from wasmlet.runtime.network.requests import check, listened, on_host, request_of, unserved, wants_network
from wasmlet.worker.grants import Grant, Port, Resolver, Rule
from wasmlet.worker.messages import Run

PORTS = [
    {"name": "web", "containerPort": 8080, "hostPort": 80, "protocol": "TCP"},
    {"containerPort": 53, "protocol": "UDP"},
    {"containerPort": 9090, "hostPort": 9090, "hostIP": "192.0.2.1"},
    {"containerPort": 7, "protocol": "SCTP"},
]
FOUND = PodNetwork(("127.9.0.7",))
NO_FILES = NameFiles()
ON = NodeNetwork(on=True, loopback="127.9.0.0/16")


def with_annotations(pod: Pod, **annotations: str) -> Pod:
    return Pod({**pod.raw, "metadata": {**pod.raw["metadata"], "annotations": annotations}})


def granted(pod: Pod, found: PodNetwork = FOUND, node: NodeNetwork = ON, names: NameFiles = NO_FILES) -> Grant:
    ports = listened(pod.containers[0], {}, host=on_host(pod), serves=False)
    return grant_of(pod, ports, found, node, names, ["192.0.2.7"])


@pytest.mark.parametrize(
    ("container", "spec", "dense"),
    [
        ({}, {}, False),
        ({"ports": [{"containerPort": 80}]}, {}, True),
        ({"readinessProbe": {"httpGet": {"port": 80}}}, {}, True),
        ({"startupProbe": {"grpc": {"port": 80}}}, {}, True),
        ({"lifecycle": {"preStop": {"httpGet": {"port": 80}}}}, {}, True),
        ({}, {"hostNetwork": True}, True),
    ],
)
def test_who_gets_a_network(container: dict[str, Any], spec: dict[str, Any], dense: bool) -> None:
    assert wants_network(pod_of(spec=spec, **container), dense=dense) is True


def test_who_gets_none() -> None:
    plain = pod_of(readinessProbe={"exec": {"command": ["x"]}}, lifecycle={"preStop": {"sleep": {"seconds": 1}}})
    assert not wants_network(plain, dense=True)
    for name in (egress.ANNOTATION, egress.KRUSTLET_ANNOTATION):
        assert wants_network(with_annotations(plain, **{name: "*"}), dense=True)


def test_what_the_network_is_asked_for() -> None:
    found = request_of(pod_of(ports=PORTS), {8080})
    assert found.ports == {8080}
    assert found.host_ports == [HostPort("", 80, 8080, "TCP"), HostPort("192.0.2.1", 9090, 9090, "TCP")]
    host = request_of(pod_of(ports=PORTS, spec={"hostNetwork": True}))
    assert host.host
    assert host.host_ports == []


def test_the_grant_of_a_container() -> None:
    grant = granted(with_annotations(pod_of(ports=PORTS), **{egress.ANNOTATION: "a.example.com:443"}))
    assert grant.addresses == ("127.9.0.7",)
    assert grant.ports == (
        Port(8080, "web", "TCP", (("192.0.2.7", 80),)),
        Port(9090, "", "TCP", (("192.0.2.1", 9090),)),
    )
    assert grant.egress == (Rule("a.example.com", "", 443, 443),)
    assert granting.listening_variables(grant) == {
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "web:unknown",
        "PORT": "8080",
    }
    assert granting.as_spec(grant, {}) == {
        "addresses": ["127.9.0.7"],
        "listeners": [
            {"number": 8080, "name": "web", "protocol": "TCP"},
            {"number": 9090, "name": "", "protocol": "TCP"},
        ],
    }
    assert Grant.of(grant.as_message()) == grant
    assert granting.listening_variables(granted(pod_of())) == {}


def test_a_pod_that_says_itself_where_names_lead() -> None:
    """Its servers are dialled like anybody else, and the names of the owner's ceiling do not hold for it."""
    servers = ["198.51.100.5", "127.0.0.53", "169.254.169.254"]

    def resolver(rules: str, **spec: Any) -> Resolver:
        pod = with_annotations(pod_of(spec=spec), **{egress.ANNOTATION: rules})
        return granted(pod, names=NameFiles(resolv_conf(pod, Dns()))).resolver

    config = {"dnsPolicy": "None", "dnsConfig": {"nameservers": servers}}
    assert resolver("a.example.com:443", **config).servers == ()
    assert resolver("198.51.100.0/24:443", **config).servers == ()
    assert resolver("198.51.100.0/24:53", **config).servers == ("198.51.100.5",)
    assert resolver("*", **config).servers == ("198.51.100.5",)
    assert resolver("*", **config).chosen
    assert resolver("*", dnsConfig={"searches": ["evil.example"]}).chosen
    assert resolver("*", hostAliases=[{"ip": "203.0.113.5", "hostnames": ["x.example"]}]).chosen
    assert not resolver("*", dnsConfig={"options": [{"name": "ndots", "value": "2"}]}).chosen


def test_the_grant_of_a_pod_with_a_namespace_or_the_nodes_network() -> None:
    inside = granted(pod_of(ports=PORTS), PodNetwork(("10.1.0.4",), namespace="/run/ns/u", mapped=True))
    assert inside.namespace == "/run/ns/u"
    assert [(port.number, port.protocol, port.hosts) for port in inside.ports] == [
        (8080, "TCP", ()),
        (53, "UDP", ()),
        (9090, "TCP", ()),
    ]
    assert not any("127." in network for network in inside.never)  # it is the pod's own
    both = [{"containerPort": 53, "hostPort": 5353, "protocol": protocol} for protocol in ("TCP", "UDP")]
    unmapped = granted(pod_of(ports=both), PodNetwork(("10.1.0.4",), namespace="/run/ns/u"))
    assert [(port.protocol, len(port.hosts)) for port in unmapped.ports] == [("TCP", 1), ("UDP", 0)]
    host = granted(pod_of(ports=PORTS, spec={"hostNetwork": True}), PodNetwork(("192.0.2.7",)))
    assert [(port.number, port.hosts) for port in host.ports] == [(8080, ()), (9090, ())]
    assert "127.0.0.0/8" in host.never


def test_what_is_never_dialled() -> None:
    def never(address: str, found: PodNetwork) -> bool:
        ip = ipaddress.ip_address(address)
        networks = map(ipaddress.ip_network, granted(pod_of(), found).never)
        return any(ip.version == one.version and ip in one for one in networks)

    always = ["169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0", "::", "::ffff:127.0.0.1"]
    always += ["::ffff:169.254.169.254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe"]
    always += ["100.100.100.200", "168.63.129.16"]
    loopback = ["127.0.0.1", "127.0.0.53", "127.8.255.255", "127.10.0.0", "::1"]
    assert all(never(ip, FOUND) for ip in (*always, *loopback))
    assert not any(never(ip, FOUND) for ip in ("127.9.0.1", "127.9.255.255", "192.0.2.7", "10.0.0.1", "fd00::1"))
    real = PodNetwork(("10.1.0.4", "fd00::4"))
    assert all(never(ip, real) for ip in (*always, *loopback, "127.9.0.1"))
    node = {
        "status": {
            "addresses": [{"type": "InternalIP", "address": "192.0.2.7"}, {"type": "Hostname", "address": "n"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        }
    }
    known = NodeNetwork(on=True, node=lambda: node)
    assert granted(pod_of(), node=known).never_at == (("192.0.2.7", 10250),)
    assert granted(pod_of()).never_at == (("127.0.0.1", 10250),)  # nothing is known of it yet


def test_names_are_resolved_by_the_pods_files() -> None:
    resolv = (
        "nameserver 10.96.0.10\nnameserver fe80::1%eth0\nnameserver nonsense\nsearch a.svc svc\n"
        "options ndots:5 timeout:90 attempts:0 rotate edns0\n"
    )
    hosts = "127.0.0.1\tlocalhost\n::1 localhost ip6-localhost # more\n10.0.0.5 One one.local\nbad name\n\n"
    found = granted(pod_of(), names=NameFiles(resolv, hosts)).resolver
    assert found == Resolver(
        ("10.96.0.10",),
        ("a.svc", "svc"),
        5,
        30.0,
        1,
        {
            "localhost": ("127.0.0.1", "::1"),
            "ip6-localhost": ("::1",),
            "one": ("10.0.0.5",),
            "one.local": ("10.0.0.5",),
        },
    )
    many = "\n".join(f"10.0.{n // 250}.{n % 250} name{n}" for n in range(1000)) + "\n" + "10.9.9.9 name1\n" * 50
    grant = granted(pod_of(), names=NameFiles("", many))
    assert len(grant.resolver.hosts) == 256
    assert Grant.of(grant.as_message()) == grant


REFUSED: list[tuple[str, NodeNetwork, dict[str, Any], dict[str, Any]]] = [
    ("spec.hostNetwork", NO_NETWORK, {"hostNetwork": True}, {}),
    ("spec.hostNetwork", ON, {"hostNetwork": True}, {}),
    ("spec.containers[0].ports", NO_NETWORK, {}, {"ports": [{"containerPort": 80, "hostPort": 80}]}),
    ("spec.containers[0].ports", ON, {}, {"ports": [{"containerPort": 1000 + n} for n in range(65)]}),
    ("spec.containers[0].ports[1].hostIP", ON, {}, {"ports": [PORTS[1], {**PORTS[2], "hostIP": "node"}]}),
    (
        "spec.containers[0].ports[0].containerPort",
        NodeNetwork(on=True, least_port=1024),
        {},
        {"ports": [{"containerPort": 80}]},
    ),
    (
        "spec.containers[0].ports[0].hostPort",
        NodeNetwork(on=True, namespaces=True, least_port=1024),
        {},
        {"ports": [{"containerPort": 80, "hostPort": 80}]},
    ),
]


@pytest.mark.parametrize(("field", "node", "spec", "container"), REFUSED)
def test_what_cannot_be_had_is_refused_by_name(
    field: str, node: NodeNetwork, spec: dict[str, Any], container: dict[str, Any]
) -> None:
    with pytest.raises(Refused) as refused:
        check(pod_of(spec=spec, **container), node)
    assert refused.value.field == field


def test_a_low_port_says_what_to_do() -> None:
    pod = pod_of(ports=[{"containerPort": 80}])
    with pytest.raises(Refused, match=r"does not run as root.*ports below 1024.*use one from 1024 on"):
        check(pod, NodeNetwork(on=True, least_port=1024))
    check(pod, NodeNetwork(on=True, least_port=1024), sockets=False)  # nobody listens at it anyway
    check(pod, NodeNetwork(on=True, least_port=1024, namespaces=True))


def test_without_a_network_ports_and_grants_mean_nothing() -> None:
    pod = with_annotations(pod_of(ports=[{"containerPort": 80}]), **{egress.ANNOTATION: "nonsense"})
    check(pod, NO_NETWORK)
    with pytest.raises(Refused, match=r"wasmlet\.dev/egress"):
        check(pod, ON)


def test_ports_that_nobody_listens_at_are_told() -> None:
    container = pod_of(ports=PORTS).containers[0]
    plain = list(unserved(container, namespace=False))
    assert [text.split()[1] for text in plain] == ["53/UDP", "7/SCTP"]
    inside = list(unserved(container, namespace=True))
    assert [text.split()[1] for text in inside] == ["7/SCTP"]
    none = list(unserved(container, namespace=False, no_sockets="it has none"))
    assert len(none) == 4
    assert all(text.endswith(": it has none") for text in none)
    udp = pod_of(ports=[{"containerPort": 53, "hostPort": 5353, "protocol": "UDP"}]).containers[0]
    (told,) = unserved(udp, namespace=True)
    assert "on the node (hostPort 5353)" in told
    assert not list(unserved(udp, namespace=True, mapped=True))


def test_a_run_carries_the_grant() -> None:
    grant = granted(pod_of(ports=PORTS))
    fields = {"id": "a" * 32, "labels": {}, "log": "logs/x", "zygote": {"python": "/p", "module": "/m", "version": "1"}}
    run = Run.of({**fields, "network": grant.as_message()})
    assert run.network == grant
    assert Run.of(run.as_message()) == run
    assert "network" not in Run.of(fields).as_message()


@pytest.mark.parametrize(("variables", "number"), [({}, 8080), ({"PORT": ""}, 8080), ({"PORT": "9001"}, 9001)])
def test_a_server_has_a_port_that_nobody_has_declared(variables: dict[str, str], number: int) -> None:
    (port,) = listened(pod_of().containers[0], variables, host=False, serves=True)
    assert (port.number, port.protocol, port.field) == (number, "TCP", "")


def test_a_declared_port_goes_before_the_variable() -> None:
    container = pod_of(ports=[{"containerPort": 80}]).containers[0]
    assert [port.number for port in listened(container, {"PORT": "9001"}, host=False, serves=True)] == [80]


@pytest.mark.parametrize("text", ["http", "0", "65536", "-1", "\uff18\uff10", "999999"])
def test_a_variable_that_is_no_port_is_named(text: str) -> None:
    with pytest.raises(Refused, match="expected PORT to be a port") as refused:
        listened(pod_of().containers[0], {"PORT": text}, host=False, serves=True)
    assert refused.value.field == "spec.containers[0].env"
    assert listened(pod_of().containers[0], {"PORT": text}, host=False, serves=False) == []
