"""A pod's /etc/hosts, /etc/hostname and /etc/resolv.conf as a kubelet writes them, worked out from its manifest."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from wasmlet.errors import Refused
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod

_LONGEST_LABEL = 63
_LONGEST_NODENAME = 64
"""Characters that the kernel takes for a host name (utsname)."""
_MOST_SERVERS = 3
_MOST_SEARCHES = 32
_LONGEST_SEARCH = 2048


@attrs.frozen
class Dns:
    """How this node's cluster resolves names.

    Attributes:
        servers: addresses of the cluster's DNS service; none: pods get the node's own resolver.
        domain: of the cluster (`cluster.local`).
        node: content of the node's own resolv.conf.
        node_hosts: content of the node's own hosts file.
    """

    servers: Sequence[str] = ()
    domain: str = "cluster.local"
    node: str = ""
    node_hosts: str = ""


def hostname(pod: Pod) -> str:
    """The pod's host name: `spec.hostname`, or the pod's name, cut to the length that a DNS label may have."""
    name = str(pod.spec.get("hostname") or pod.name)
    return name if len(name) <= _LONGEST_LABEL else name[:_LONGEST_LABEL].rstrip("-.")


def full_name(pod: Pod, domain: str) -> str:
    """The name that the cluster's DNS service has for the pod; "" for a pod without `spec.subdomain`."""
    subdomain = pod.spec.get("subdomain")
    return f"{hostname(pod)}.{subdomain}.{pod.namespace}.svc.{domain}" if subdomain else ""


def set_hostname(pod: Pod, domain: str, node_name: str) -> str:
    """What a container of the pod finds as its host name: the pod's, its full one (KEP-1797), or the node's.

    Raises:
        Refused: the full name is asked for and is longer than a kernel takes, which a kubelet refuses, too.
    """
    if pod.spec.get("hostNetwork"):
        return node_name or hostname(pod)
    full = full_name(pod, domain) if pod.spec.get("setHostnameAsFQDN") else ""
    if len(full) > _LONGEST_NODENAME:
        raise Refused(
            "spec.setHostnameAsFQDN",
            f"failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long "
            f"({_LONGEST_NODENAME} characters is the max, {len(full)} characters requested)",
        )
    return full or hostname(pod)


def hosts_file(pod: Pod, inputs: Inputs, dns: Dns, pod_ips: Sequence[str] = ()) -> str:
    """The content of /etc/hosts; a pod without an address of its own is at the node's (as `status.podIP` is)."""
    if pod.spec.get("hostNetwork"):
        lines = ["# Kubernetes-managed hosts file (host network).", dns.node_hosts.removesuffix("\n")]
    else:
        lines = _managed_hosts(hostname(pod), full_name(pod, dns.domain), pod_ips or inputs.node_ips)
    if aliases := pod.spec.get("hostAliases"):
        lines += ["", "# Entries added by HostAliases."]
        lines += ["\t".join([alias["ip"], *(alias.get("hostnames") or ())]) for alias in aliases]
    return "\n".join([*lines, ""])


def _managed_hosts(name: str, full: str, ips: Sequence[str]) -> list[str]:
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    return [*lines, *("\t".join(filter(None, (ip, full, name))) for ip in ips)]


def resolv_conf(pod: Pod, dns: Dns) -> str:
    """The content of /etc/resolv.conf that `dnsPolicy` and `dnsConfig` ask for."""
    policy = pod.spec.get("dnsPolicy") or "ClusterFirst"
    servers, searches, options = ([], [], []) if policy == "None" else resolver_words(dns.node)
    clusters = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not pod.spec.get("hostNetwork"))
    if clusters and dns.servers:
        servers = list(dns.servers)
        searches = [f"{pod.namespace}.svc.{dns.domain}", f"svc.{dns.domain}", dns.domain, *searches]
        options = ["ndots:5"]
    config = pod.spec.get("dnsConfig") or {}
    servers = _unique([*servers, *(config.get("nameservers") or ())])[:_MOST_SERVERS]
    searches = _unique([*searches, *(config.get("searches") or ())])[:_MOST_SEARCHES]
    while len(" ".join(searches)) > _LONGEST_SEARCH:
        searches.pop()
    for option in config.get("options") or ():
        name, value = option.get("name", ""), option.get("value")
        options = [known for known in options if known.split(":")[0] != name]
        options.append(name if value is None else f"{name}:{value}")
    text = "".join(f"nameserver {server}\n" for server in servers)
    if searches:
        text += f"search {' '.join(searches)}\n"
    if options:
        text += f"options {' '.join(options)}\n"
    return text


def resolver_words(text: str) -> tuple[list[str], list[str], list[str]]:
    """Servers, search domains and options of a resolv.conf; the last of several `search` or `options` lines counts."""
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        keyword, *words = line.split() or [""]
        if keyword == "nameserver" and words:
            servers.append(words[0])
        elif keyword == "search":
            searches = [word if word == "." else word.rstrip(".") for word in words]
        elif keyword == "options":
            options = words
    return servers, searches, options


def _unique(words: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(words))
