"""Certificates of a pool's nodes: which requests are approved, and nodes that have them, on a cluster."""

from __future__ import annotations

import base64
import copy
import ipaddress
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.operator.harness import NODES, Fleet
from wasmlet.kube.certificates import CLIENT_SIGNER, REQUESTS, SERVING_SIGNER
from wasmlet.operator.identity import objection

KEY = ec.generate_private_key(ec.SECP256R1())
ACCOUNT = "system:serviceaccount:fleet:wasmlet-pool-edge"
POOL = {"metadata": {"name": "edge"}, "spec": {"identity": "Certificate"}}
POD = {
    "metadata": {
        "name": "edge-0",
        "uid": "u",
        "labels": {"wasmlet.dev/pool": "edge"},
        "ownerReferences": [{"kind": "StatefulSet", "name": "edge", "controller": True}],
    },
    "status": {"podIP": "10.0.0.1"},
}


def asked(
    *hosts: str, name: str = "edge-0", user: str = ACCOUNT, signer: str = CLIENT_SIGNER, group: str = "system:nodes"
) -> dict[str, Any]:
    """A request for a certificate of node `name`."""
    subject = [(NameOID.ORGANIZATION_NAME, group), (NameOID.COMMON_NAME, f"system:node:{name}")]
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    )
    if hosts:
        named = [x509.IPAddress(ipaddress.ip_address(h)) if h[0].isdigit() else x509.DNSName(h) for h in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(named), critical=False)
    pem = builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    spec: dict[str, Any] = {
        "request": base64.b64encode(pem).decode(),
        "signerName": signer,
        "username": user,
        "usages": ["digital signature", "client auth" if signer == CLIENT_SIGNER else "server auth"],
    }
    if user == ACCOUNT:
        key = "authentication.kubernetes.io/pod-"
        spec["extra"] = {f"{key}name": ["edge-0"], f"{key}uid": ["u"]}
    return {"metadata": {"name": "csr"}, "spec": spec}


def serving(*hosts: str, user: str = "system:node:edge-0") -> dict[str, Any]:
    return asked(*hosts, user=user, signer=SERVING_SIGNER)


def changed(raw: dict[str, Any], value: Any, *path: str) -> dict[str, Any]:
    found = copy.deepcopy(raw)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return found


@pytest.mark.parametrize(
    "raw",
    [asked(), asked(user="system:node:edge-0"), serving("edge-0", "10.0.0.1"), serving("edge-0")],
    ids=["a pod for its node", "a node for itself", "its API", "its API by name"],
)
def test_what_is_the_nodes_own_is_approved(raw: dict[str, Any]) -> None:
    assert objection(raw, POD, POOL, "fleet") == ""


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (asked(name="edge-1"), "its subject is not that of node edge-0"),
        (asked(group="system:masters"), "its subject is not that of node edge-0"),
        (asked("edge-0"), "it is for edge-0, too"),
        (asked(user="system:node:edge-1"), "is neither node edge-0 nor its pod"),
        (asked(user="system:serviceaccount:fleet:other"), "is neither node edge-0 nor its pod"),
        (asked(user="system:serviceaccount:other:wasmlet-pool-edge"), "is neither node edge-0 nor its pod"),
        (asked(signer=SERVING_SIGNER), "a pod asks for no more"),
        (serving("edge-0", "10.0.0.2"), "it is for 10.0.0.2, too"),
        (serving("kubernetes.default.svc"), "it is for kubernetes.default.svc, too"),
        (changed(asked(), {}, "spec", "extra"), "it is not asked for by the pod"),
        (changed(asked(), ["client auth", "cert sign"], "spec", "usages"), "expected the usages"),
        (changed(asked(), "AAAA", "spec", "request"), "it cannot be read"),
    ],
)
def test_what_is_not_is_left_to_others(raw: dict[str, Any], word: str) -> None:
    assert word in objection(raw, POD, POOL, "fleet")


EXTENSIONS = x509.ObjectIdentifier("1.3.6.1.4.1.311.2.1.14")
"""Microsoft's attribute that asks for extensions."""


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"x", b""), (b" x\n", b""), (b"", b"x"), (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", b"")],
)
def test_a_file_in_which_another_reader_finds_another_request_is_not_read(before: bytes, after: bytes) -> None:
    """To Go's reader a block begins at the beginning of a line, so the signer would see the second one."""
    own, other = (base64.b64decode(one["spec"]["request"]) for one in (asked(), asked(name="control-plane")))
    both = base64.b64encode(before + own + after + other).decode()
    assert objection(changed(asked(), both, "spec", "request"), POD, POOL, "fleet") == "it cannot be read"


def test_a_request_that_asks_for_extensions_twice_is_not_read() -> None:
    """One reader takes the first, and another one the one that it knows."""
    own = x509.load_pem_x509_csr(base64.b64decode(serving("edge-0")["spec"]["request"]))
    twice = x509.CertificateSigningRequestBuilder(own.subject, list(own.extensions)).add_attribute(
        EXTENSIONS, b"another"
    )
    pem = base64.b64encode(twice.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)).decode()
    assert objection(changed(serving("edge-0"), pem, "spec", "request"), POD, POOL, "fleet") == "it cannot be read"


@pytest.mark.parametrize(
    ("pod", "pool", "word"),
    [
        (changed(POD, "v", "metadata", "uid"), POOL, "it is not asked for by the pod edge-0 that there is now"),
        (changed(POD, "2026-01-01T00:00:00Z", "metadata", "deletionTimestamp"), POOL, "there is no pod"),
        ({"metadata": {}}, POOL, "there is no pod edge-0"),
        (changed(POD, [], "metadata", "ownerReferences"), POOL, "is not of a pool's node"),
        (POD, {"metadata": {}}, "is not of a pool's node"),
        (POD, changed(POOL, "Impersonate", "spec", "identity"), "have no certificates"),
    ],
)
def test_a_pod_that_is_no_nodes_gets_none(pod: dict[str, Any], pool: dict[str, Any], word: str) -> None:
    assert word in objection(asked(), pod, pool, "fleet")


@pytest.mark.needs_root("the pods of nodes are put into namespaces")
@pytest.mark.timeout(600)
async def test_nodes_with_certificates(fleet: Fleet) -> None:
    async with fleet.account() as kubeconfig:
        operator = await fleet.operator(kubeconfig=kubeconfig)
        await fleet.pool(identity="Certificate")
        await fleet.ready(1)

        def signed(found: Any) -> bool:
            mine = [one for one in found.values() if one["spec"]["username"] == "system:node:edge-0"]
            return any((one.get("status") or {}).get("certificate") for one in mine)

        found = await fleet.until(REQUESTS, signed)
        first = [one for one in found.values() if one["spec"]["username"].endswith(":wasmlet-pool-edge")]
        assert [one["status"]["conditions"][0]["reason"] for one in first] == ["NodeOfPool"]
        rules = (await fleet.admin.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/wasmlet-pool-edge"))["rules"]
        assert [rule["resources"] for rule in rules] == [["certificatesigningrequests"]]
        await fleet.remove()
        await fleet.gone()
        for one in found:
            await fleet.run("delete", "csr", one)
        assert not [line for line in operator.said() if line["level"] in ("warning", "error")]
    assert (await fleet.admin.get(NODES, labelSelector="wasmlet.dev/pool"))["items"] == []
