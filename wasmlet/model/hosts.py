"""A pod's /etc/hosts, /etc/hostname and /etc/resolv.conf as a kubelet writes them, worked out from its manifest."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod

_LONGEST_LABEL = 63
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
    """

    servers: Sequence[str] = ()
    domain: str = "cluster.local"
    node: str = ""


def hostname(pod: Pod) -> str:
    """The pod's host name: what `spec.hostname` says or the pod's name, cut to what a label may be long."""
    name = str(pod.spec.get("hostname") or pod.name)
    return name if len(name) <= _LONGEST_LABEL else name[:_LONGEST_LABEL].rstrip("-.")


def hosts_file(pod: Pod, inputs: Inputs, dns: Dns, pod_ips: Sequence[str] = ()) -> str:
    """The content of /etc/hosts; a pod without an address of its own is at the node's (as `status.podIP` is)."""
    name, subdomain = hostname(pod), pod.spec.get("subdomain")
    full = f"{name}.{subdomain}.{pod.namespace}.svc.{dns.domain}" if subdomain else ""
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    lines += ["\t".join(filter(None, (ip, full, name))) for ip in pod_ips or inputs.node_ips]
    if aliases := pod.spec.get("hostAliases"):
        lines += ["", "# Entries added by HostAliases."]
        lines += ["\t".join([alias["ip"], *(alias.get("hostnames") or ())]) for alias in aliases]
    return "\n".join([*lines, ""])


def resolv_conf(pod: Pod, dns: Dns) -> str:
    """The content of /etc/resolv.conf that `dnsPolicy` and `dnsConfig` ask for."""
    policy = pod.spec.get("dnsPolicy") or "ClusterFirst"
    servers, searches, options = ([], [], []) if policy == "None" else _read(dns.node)
    if policy == "ClusterFirst" and dns.servers:
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


def _read(text: str) -> tuple[list[str], list[str], list[str]]:
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
