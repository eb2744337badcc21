"""The checks of `wasmlet doctor`: whether a node would work on this machine, with these credentials, in this cluster.

Each check is a function that returns findings, or none where there is nothing to say. None of them changes anything.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Literal

import attrs

import wasmlet
from wasmlet.clock import Clock
from wasmlet.errors import ConfigError, WasmletError
from wasmlet.kube import Client, errors, paths
from wasmlet.model.pod import Raw
from wasmlet.model.times import parse
from wasmlet.node.config import NodeConfig
from wasmlet.node.description import KUBELET_VERSION
from wasmlet.sizes import size

_SHARED_MEMORY = 128 * 2**20
_DESCRIPTORS = 4096
_SKEW = timedelta(seconds=5)
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"


@attrs.frozen
class Finding:
    """What a check has found.

    Attributes:
        level: `fails` if no pod would run, or nobody could read its log; `warns` of what is less than that.
        what: what was looked at, in a few words.
        said: what was found.
        cure: what to do; "" where there is nothing to do.
    """

    level: Literal["ok", "warns", "fails"]
    what: str
    said: str
    cure: str = ""


async def machine(provider: wasmlet.Provider, config: NodeConfig) -> list[Finding]:
    """What this machine has for the provider's pods."""
    found = []
    try:
        await provider.check()
        found.append(Finding("ok", f"provider {provider.name}", "can run here"))
        remarks = await provider.remarks()
        found += [
            Finding("warns", "isolation", remark, "docs/threat-model.md says what guests reach") for remark in remarks
        ]
    except ConfigError as error:
        found.append(Finding("fails", f"provider {provider.name}", str(error)))
    try:
        there = await asyncio.to_thread(config.check_directory)
        found.append(
            Finding("ok", "state directory", f"{config.state_path()}{'' if there else ', which the node will make'}")
        )
    except ConfigError as error:
        found.append(Finding("fails", "state directory", str(error)))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _DESCRIPTORS:
        said = f"at most {hard} open files, of which a node of many pods needs some for each"
        found.append(
            Finding("warns", "open files", said, f"raise the limit (ulimit -Hn, LimitNOFILE) to {_DESCRIPTORS}")
        )
    try:
        memory = os.statvfs("/dev/shm")
        if (free := memory.f_bavail * memory.f_frsize) < _SHARED_MEMORY:
            said = f"/dev/shm has {size(free)} free, where secrets of pods and what is staged for guests lie"
            found.append(Finding("warns", "memory for secrets", said, "mount more there, as the chart does"))
    except OSError:
        found.append(Finding("warns", "memory for secrets", "there is no /dev/shm: secrets of pods are on disk"))
    return found


async def cluster(client: Client, config: NodeConfig, clock: Clock) -> list[Finding]:
    """What the API server says of these credentials, of the clock, and of what a node may do with them."""
    found, user = await met(client, config, clock)
    if user is not None:
        found.append(_identity(user, config))
        found.append(await _node_rights(client, config, node=str(user.get("username")).startswith(_NODE)))
    return found


async def met(client: Client, config: NodeConfig, clock: Clock) -> tuple[list[Finding], Raw | None]:
    """Findings about the API server and the clock, and the user of these credentials; None if it cannot be known."""
    server = client.identity.server
    try:
        version = str((await client.get("/version")).get("gitVersion"))
    except (errors.ApiError, WasmletError) as error:
        cure = "see whether kubectl reaches it with these credentials"
        if config.impersonate_node and isinstance(error, errors.Forbidden):
            them = f"{_NODE}{config.node_name} and system:nodes"
            cure = f"give them the right to impersonate {them} (docs/how-to/credentials.md)"
        elif isinstance(error, errors.Unauthorized):
            cure = "other credentials; a bootstrap token ends after a day or so: kubeadm token create makes another"
        return [Finding("fails", "API server", f"{server}: {error}", cure)], None
    found = [Finding("ok", "API server", f"{server} is Kubernetes {version}")]
    if 0 < _minor(version) < _minor(KUBELET_VERSION):
        said = f"the node calls itself {KUBELET_VERSION}, which is newer than the API server"
        found.append(Finding("warns", "versions", said, "a cluster may refuse kubelets that are newer than it is"))
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        review = await client.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
    except errors.ApiError as error:
        said = f"the API server does not say whose they are: {error}"
        return [*found, Finding("fails", "credentials", said, "give other credentials with --kubeconfig")], None
    found += _clock(review, clock)
    return found, review["status"]["userInfo"]


_NODE = "system:node:"


def _clock(review: Raw, clock: Clock) -> list[Finding]:
    """What the time at which the API server has answered says of this machine's clock."""
    told = review["metadata"].get("creationTimestamp")
    skew = abs(clock.now() - parse(told)) if told else timedelta()
    if skew <= _SKEW:
        return [Finding("ok", "clock", "agrees with the API server's")]
    said = f"differs from the API server's by {skew.total_seconds():.0f} s"
    return [Finding("fails", "clock", said, "have it set by NTP: tokens and certificates are refused otherwise")]


def _identity(user: Raw, config: NodeConfig) -> Finding:
    """Who the credentials are, as the API server sees them."""
    name, node = str(user.get("username")), f"{_NODE}{config.node_name}"
    if name == node and "system:nodes" in (user.get("groups") or ()):
        return Finding("ok", "identity", name)
    if name.startswith(_NODE):
        return Finding("fails", "identity", f"{name}, expected {node}", "give that name with --node-name")
    said = f"{name} is not a node, so the API server does not keep it to the secrets of its own pods"
    cure = "give it the credentials of a node, or --impersonate-node (docs/how-to/credentials.md)"
    return Finding("warns", "identity", said, cure)


async def classes(client: Client, config: NodeConfig) -> list[Finding]:
    """Whether pods can ask for this node's handlers."""
    try:
        items = (await client.get(_CLASSES))["items"]
    except errors.ApiError as error:
        return [Finding("warns", "RuntimeClasses", f"cannot be listed: {error}")]
    ours = sorted(item["metadata"]["name"] for item in items if str(item.get("handler")).startswith("wasmlet"))
    if ours:
        return [Finding("ok", "RuntimeClasses", ", ".join(ours))]
    said = "there is none of wasmlet's; without one, each pod needs a nodeSelector and a toleration of its own"
    return [Finding("warns", "RuntimeClasses", said, "kubectl apply -f examples/runtimeclasses.yaml")]


async def reach(client: Client, config: NodeConfig) -> list[Finding]:
    """Whether the API server reaches the node, where one of this name runs: `kubectl logs` goes that way."""
    try:
        await client.get(f"{paths.NODES}/{config.node_name}")
    except errors.ObjectNotFound:
        said = f"there is no node {config.node_name} yet; run this again when it is there"
        return [Finding("ok", "reach", said)]
    except errors.ApiError as error:
        return [Finding("warns", "reach", f"node {config.node_name} cannot be read: {error}")]
    try:
        async with client.stream(f"{paths.NODES}/{config.node_name}/proxy/healthz", {}, silence=20) as content:
            await content.read(100)
    except errors.Forbidden:
        said = "these credentials may not have the API server ask the node (nodes/proxy)"
        return [Finding("ok", "reach", said, "run this with an administrator's --kubeconfig to know")]
    except errors.ObjectNotFound:
        return [Finding("ok", "reach", "this API server has no proxy to nodes; kubectl logs of a pod tells")]
    except errors.ApiError as error:
        if "address not allowed" in str(error):
            said = "the node's address is a loopback one, which only an API server on this machine reaches"
            return [Finding("warns", "reach", said, "give it another one with --node-ip")]
        return [Finding("fails", "reach", f"the API server does not reach the node: {error}", _cure(str(error)))]
    return [Finding("ok", "reach", f"the API server reaches node {config.node_name}")]


def _cure(said: str) -> str:
    if "x509" in said or "certificate" in said:
        return "approve the node's serving certificate: kubectl get csr, kubectl certificate approve NAME"
    if "no such host" in said:
        return "the node's name does not resolve where the API server is: take another --node-name"
    return "see that its address (--node-ip) and port (--port) can be reached from the control plane"


def _minor(version: str) -> int:
    """The second number of a version; 0 where there is none."""
    parts = version.lstrip("v").split(".")
    return int("".join(c for c in parts[1] if c.isdigit()) or 0) if len(parts) > 1 else 0


_NEEDED: Sequence[tuple[str, str, str, str]] = (
    ("create", "", "nodes", ""),
    ("patch", "", "nodes", "status"),
    ("list", "", "pods", ""),
    ("watch", "", "pods", ""),
    ("delete", "", "pods", ""),
    ("patch", "", "pods", "status"),
    ("list", "", "services", ""),
    ("watch", "", "services", ""),
    ("create", "", "events", ""),
    ("create", "coordination.k8s.io", "leases", ""),
    ("patch", "coordination.k8s.io", "leases", ""),
    ("list", "node.k8s.io", "runtimeclasses", ""),
    ("watch", "node.k8s.io", "runtimeclasses", ""),
    ("create", "authentication.k8s.io", "tokenreviews", ""),
    ("create", "authorization.k8s.io", "subjectaccessreviews", ""),
)
"""Verb, group, resource and subresource of what a node always needs. What its pods refer to, it may read only once they
are there, so that this cannot be asked before."""


_CERTIFICATE = ("create", "certificates.k8s.io", "certificatesigningrequests", "")
"""What a node needs for a serving certificate that the cluster signs; `--no-serving-csr` does without."""


async def _node_rights(client: Client, config: NodeConfig, *, node: bool) -> Finding:
    """Whether these credentials may do what a node does.

    Args:
        node: they are a node's, which may list pods with a selector only, for which a review has no word.
    """
    asked = _NEEDED if not config.serving_csr else (*_NEEDED, _CERTIFICATE)
    needed = [one for one in asked if not (node and one[2:] == ("pods", "") and one[0] in ("list", "watch"))]
    names = {
        "leases": {"namespace": "kube-node-lease", "name": config.node_name},
        "nodes": {"name": config.node_name},
    }
    cure = "give it the credentials of a node, or --impersonate-node (docs/how-to/credentials.md)"
    return await rights(client, needed, "what every node does", cure, names)


async def rights(
    client: Client,
    needed: Sequence[tuple[str, str, str, str]],
    what: str,
    cure: str,
    names: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Finding:
    """Whether these credentials may do all that.

    Args:
        needed: verb, group, resource and subresource.
        names: by resource, of which object in which namespace.
    """

    async def missing(verb: str, group: str, kind: str, part: str) -> str:
        attributes = {"verb": verb, "group": group, "resource": kind, "subresource": part, **names.get(kind, {})}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = await client.create(_REVIEWS, body)
        return "" if (answer.get("status") or {}).get("allowed") else f"{verb} {kind}{part and '/'}{part}"

    try:
        found = [one for one in await asyncio.gather(*(missing(*one) for one in needed)) if one]
    except errors.ApiError as error:
        return Finding("warns", "rights", f"the API server does not say what these credentials may do: {error}")
    if not found:
        return Finding("ok", "rights", f"{what} is allowed")
    return Finding("fails", "rights", f"these credentials may not {', '.join(found)}", cure)
