"""/etc/hosts with hostAliases, /etc/hostname, and /etc/resolv.conf by dnsPolicy; the pod's address is in the first."""

from __future__ import annotations

from tests.conformance.conftest import Own
from tests.conformance.harness import Kube


async def test_hosts(kube: Kube) -> None:
    aliases = [{"ip": "10.1.2.3", "hostnames": ["one.local", "two.local"]}]
    spec = {"hostAliases": aliases, "hostname": "web", "subdomain": "sub"}
    await kube.create("cat", "/etc/hosts", "print", "--", "cat", "/etc/hostname", spec=spec)
    hosts, _, name = (await kube.output()).partition("--\n")
    assert hosts.startswith("# Kubernetes-managed hosts file")
    lines = [line.split() for line in hosts.splitlines() if line and not line.startswith("#")]
    assert ["127.0.0.1", "localhost"] in lines
    assert ["10.1.2.3", "one.local", "two.local"] in lines
    assert name.strip() == "web"


async def test_the_pods_address(net: Kube) -> None:
    spec = {"hostname": "web", "subdomain": "sub"}
    variables = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    await net.create("cat", "/etc/hosts", "env", "IP", spec=spec, env=variables)
    pod = await net.ended()
    address = pod["status"]["podIP"]
    lines = [line.split() for line in (await net.output()).splitlines()]
    full = f"web.sub.{net.namespace}.svc.cluster.local"
    assert [address, full, "web"] in lines
    assert [f"IP={address}"] in lines


async def test_a_mount_over_it(kube: Kube) -> None:
    await kube.config_map("m", hosts="1.2.3.4 mine\n")
    spec = {"volumes": [{"name": "v", "configMap": {"name": "m"}}]}
    mounts = [{"name": "v", "mountPath": "/etc/hosts", "subPath": "hosts"}]
    await kube.create("cat", "/etc/hosts", spec=spec, volumeMounts=mounts)
    assert await kube.output() == "1.2.3.4 mine\n"


async def test_resolv_conf(own: Own) -> None:
    async with own(cluster_dns=("10.96.0.10",), cluster_domain="cluster.local") as kube:
        config = {"nameservers": ["9.9.9.9"], "searches": ["example.com"], "options": [{"name": "ndots", "value": "2"}]}
        await kube.create("cat", "/etc/resolv.conf", name="first", spec={"dnsPolicy": "ClusterFirst"})
        await kube.create("cat", "/etc/resolv.conf", name="none", spec={"dnsPolicy": "None", "dnsConfig": config})
        first = (await kube.output("first")).splitlines()
        assert "nameserver 10.96.0.10" in first
        search = next(line for line in first if line.startswith("search "))
        assert search.startswith(f"search {kube.namespace}.svc.cluster.local svc.cluster.local cluster.local")
        none = (await kube.output("none")).split("\n")
        assert sorted(filter(None, none)) == ["nameserver 9.9.9.9", "options ndots:2", "search example.com"]


async def test_the_full_name_as_host_name(kube: Kube) -> None:
    spec = {"setHostnameAsFQDN": True, "hostname": "web", "subdomain": "sub"}
    await kube.create("env", "HOSTNAME", "cat", "/etc/hostname", spec=spec)
    full = f"web.sub.{kube.namespace}.svc.cluster.local"
    assert (await kube.output()).split() == [f"HOSTNAME={full}", full]
