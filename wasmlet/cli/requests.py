"""The checks of `wasmlet doctor` about a node's certificates: what a bootstrap token may do, and open requests."""

from __future__ import annotations

import base64
import random

import attrs
from cryptography.x509.oid import NameOID

from wasmlet.cli.diagnosis import Finding, met, rights
from wasmlet.clock import Clock
from wasmlet.errors import ConfigError
from wasmlet.kube import Client, Identity, errors, load_identity
from wasmlet.kube.certificates import CLIENT_SIGNER, REQUESTS
from wasmlet.kube.keys import read_request
from wasmlet.model.pod import Raw
from wasmlet.node import NodeConfig
from wasmlet.node.credentials import Credentials

_NODE = "system:node:"
_CLIENT = "client certificate"
_ASKS = tuple((verb, "certificates.k8s.io", "certificatesigningrequests", "") for verb in ("create", "list", "watch"))
"""What a bootstrap token needs, as verb, group, resource and subresource."""


async def identity(config: NodeConfig, clock: Clock) -> tuple[Identity, bool]:
    """The credentials that a start would use first, and whether they are those of `--bootstrap-kubeconfig`.

    Raises:
        ConfigError: there are no credentials that can be used.
    """
    if config.bootstrap_kubeconfig is None:
        found = await load_identity(config.kubeconfig)
        return found.as_node(config.node_name) if config.impersonate_node else found, False
    try:
        kept = await Credentials(config, config.state_path(), clock, random.Random()).kept()
    except OSError as error:
        raise ConfigError(f"state directory {config.state_path()}: {error.strerror}") from None
    if kept is not None:
        return kept, False
    return await load_identity(config.bootstrap_kubeconfig), True


async def bootstrap(client: Client, config: NodeConfig, clock: Clock) -> list[Finding]:
    """Whether these credentials get the node its own, and how a request stands that an earlier start has made."""
    found, user = await met(client, config, clock)
    if user is None:
        return found
    said = f"{user.get('username')} asks for a certificate of {_NODE}{config.node_name} when the node starts"
    found.append(Finding("ok", "identity", said))
    cure = "bind its group (system:bootstrappers) to ClusterRole system:node-bootstrapper"
    found.append(await rights(client, _ASKS, "asking for a certificate", cure))
    if found[-1].level == "ok":
        found += await _request(client, config, CLIENT_SIGNER, Finding("fails", _CLIENT, "the node waits for it"))
    said = "not known yet: the node has no certificate of its own"
    return [*found, Finding("warns", "the node's rights", said, "start the node, and run this again once it has one")]


async def of_node(client: Client, config: NodeConfig) -> list[Finding]:
    """How the newest requests of a node that has credentials stand: for its API's certificate, and to renew its own."""
    found = []
    if config.serving_csr:
        serving = Finding("warns", "serving certificate", "kubectl logs fails where kubelets are verified")
        found += await _request(client, config, config.serving_signer, serving)
    if config.bootstrap_kubeconfig is not None:
        renewed = Finding("warns", _CLIENT, "the node's own is not renewed")
        found += await _request(client, config, CLIENT_SIGNER, renewed)
    return found


async def _request(client: Client, config: NodeConfig, signer: str, follows: Finding) -> list[Finding]:
    """What became of the node's newest request at a signer; nothing where there is none, or it was answered.

    Args:
        follows: what follows where it was not answered.
    """
    try:
        items = (await client.get(REQUESTS, fieldSelector=f"spec.signerName={signer}"))["items"]
    except errors.ApiError as error:
        return [Finding("warns", follows.what, f"its requests cannot be listed: {error}")]
    own = [item for item in items if item["spec"].get("signerName") == signer and _is_of(item, config.node_name)]
    if not own:
        return []
    newest = max(own, key=lambda item: str(item["metadata"].get("creationTimestamp")))
    name, status = newest["metadata"]["name"], newest.get("status") or {}
    if status.get("certificate"):
        return []
    conditions = {one.get("type"): one for one in status.get("conditions") or ()}
    for kind, word in (("Denied", "was denied"), ("Failed", "has failed")):
        if kind in conditions:
            why = ": ".join(filter(None, (conditions[kind].get("reason"), conditions[kind].get("message"))))
            cure = f"see why, and have the node ask again: kubectl delete csr {name}, and start the node anew"
            return [attrs.evolve(follows, said=f"request {name} {word} ({why}); {follows.said}", cure=cure)]
    if "Approved" in conditions:
        said = f"request {name} is approved, and {signer} has not signed it; {follows.said}"
        return [attrs.evolve(follows, said=said, cure="see whether anything in the cluster signs for that signer")]
    said = f"request {name} waits for approval; {follows.said}"
    return [attrs.evolve(follows, said=said, cure=f"kubectl certificate approve {name}")]


def _is_of(request: Raw, node: str) -> bool:
    """Whether somebody asks for a certificate of that node."""
    try:
        pem = base64.b64decode(request["spec"]["request"])
        subject = read_request(pem).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (KeyError, ValueError):
        return False
    return [attribute.value for attribute in subject] == [f"{_NODE}{node}"]
