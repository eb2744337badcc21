"""CertificateSigningRequests: what may be asked for, who approves and signs what, and what a bootstrap token is for."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.controlplane.client import MERGE, Api, Kubectl, Object, open_api
from wasmlet.controlplane.access.certificate_requests import CLIENT, KUBELET_CLIENT, KUBELET_SERVING
from wasmlet.controlplane.access.rules import Rule
from wasmlet.controlplane.certificates.kubeconfig import kubeconfig
from wasmlet.controlplane.certificates.pki import Pair
from wasmlet.testing import ControlPlane

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
USAGES = {KUBELET_CLIENT: "client auth", KUBELET_SERVING: "server auth", CLIENT: "client auth"}


def pem_request(
    user: str, groups: tuple[str, ...] = ("system:nodes",), hosts: tuple[x509.GeneralName, ...] = ()
) -> tuple[bytes, bytes]:
    """A signed request and its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), private


def request(name: str, pem: bytes, signer: str = KUBELET_CLIENT, **spec: Any) -> Object:
    """A CertificateSigningRequest as a kubelet makes it."""
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": base64.b64encode(pem).decode(),
            "signerName": signer,
            "usages": ["digital signature", USAGES.get(signer, "client auth")],
            **spec,
        },
    }


SERVING = (x509.DNSName("n1"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


async def signed(api: Api, name: str) -> x509.Certificate:
    """The certificate of a request, once there is one."""
    async with api.watch(REQUESTS, fieldSelector=f"metadata.name={name}") as lines:
        while True:
            status = (await lines.next(60))["object"]["status"]
            assert not any(item["type"] in ("Failed", "Denied") for item in status.get("conditions", ()))
            if "certificate" in status:
                return x509.load_pem_x509_certificate(base64.b64decode(status["certificate"]))


async def settled(api: Api, name: str, condition: str) -> Object:
    """A request's condition, once there is one of that type."""
    async with api.watch(REQUESTS, fieldSelector=f"metadata.name={name}") as lines:
        while True:
            status = (await lines.next(60))["object"]["status"]
            for item in status.get("conditions", ()):
                if item["type"] == condition:
                    return dict(item)


async def approve(api: Api, name: str, condition: str = "Approved") -> Object:
    found = await api.ok("GET", f"{REQUESTS}/{name}")
    had = found["status"].get("conditions", [])
    found["status"]["conditions"] = [*had, {"type": condition, "status": "True", "reason": "Test", "message": "m"}]
    answer: Object = await api.ok("PUT", f"{REQUESTS}/{name}/approval", found)
    return answer


@pytest.fixture
async def bootstrap(control_plane: ControlPlane) -> AsyncIterator[Api]:
    """A client with a bootstrap token and nothing else."""
    async with open_api(control_plane, control_plane.bootstrap_kubeconfig("abc123")) as api:
        yield api


@pytest.fixture
async def n1(control_plane: ControlPlane) -> AsyncIterator[Api]:
    """A client with the identity of node n1."""
    async with open_api(control_plane, control_plane.node_kubeconfig("n1")) as api:
        yield api


async def test_a_machine_becomes_a_node_with_a_bootstrap_token(
    control_plane: ControlPlane, bootstrap: Api, tmp_path: Path
) -> None:
    pem, key = pem_request("system:node:n1")
    made = await bootstrap.ok("POST", REQUESTS, request("csr-1", pem, username="root", groups=["system:masters"]))
    assert made["spec"]["username"] == "system:bootstrap:abc123"
    assert set(made["spec"]["groups"]) > {"system:bootstrappers", "system:authenticated"}
    assert "system:masters" not in made["spec"]["groups"]
    certificate = await signed(bootstrap, "csr-1")
    assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=360)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    pair = Pair(certificate.public_bytes(serialization.Encoding.PEM), key)
    ca = await asyncio.to_thread(control_plane.ca_file.read_bytes)
    file = tmp_path / "node.kubeconfig"
    await asyncio.to_thread(file.write_bytes, kubeconfig(control_plane.url, ca, "n1", pair))
    async with open_api(control_plane, file) as node:
        assert (await node("GET", "/api/v1/pods?fieldSelector=spec.nodeName=n1"))[0] == 200
        assert (await node("GET", "/api/v1/pods?fieldSelector=spec.nodeName=n2"))[0] == 403


async def test_what_a_bootstrap_token_is_not_good_for(control_plane: ControlPlane, bootstrap: Api, api: Api) -> None:
    for path in ("/api/v1/nodes", "/api/v1/namespaces/kube-system/secrets", "/api/v1/pods"):
        assert (await bootstrap("GET", path))[0] == 403
    assert (await bootstrap("PUT", f"{REQUESTS}/x/approval", {}))[0] == 403
    pem, _ = pem_request("system:node:n1", hosts=SERVING)
    await bootstrap.ok("POST", REQUESTS, request("serving", pem, KUBELET_SERVING))
    secret = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-abc123"
    await api.ok("DELETE", secret)
    assert (await bootstrap("GET", REQUESTS))[0] == 401
    late = control_plane.bootstrap_kubeconfig("late00", seconds=-1)
    async with open_api(control_plane, late) as nobody:
        assert (await nobody("GET", REQUESTS))[0] == 401
    with pytest.raises(ValueError, match="six of a-z"):
        control_plane.bootstrap_kubeconfig("UPPER")


async def test_a_node_renews_its_own_certificate_and_nobody_elses(n1: Api, api: Api) -> None:
    pem, _ = pem_request("system:node:n1")
    await n1.ok("POST", REQUESTS, request("own", pem, expirationSeconds=600))
    certificate = await signed(n1, "own")
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(seconds=500) < left <= timedelta(seconds=600)
    condition = await settled(api, "own", "Approved")
    assert condition["reason"] == "AutoApproved"
    assert "self kubelet" in condition["message"]
    assert condition["lastUpdateTime"]
    assert condition["lastTransitionTime"]
    pem, _ = pem_request("system:node:n2")
    status, answer = await n1("POST", REQUESTS, request("other", pem))
    assert (status, answer["reason"]) == (403, "Forbidden")
    assert "can only create a node CSR with CN=system:node:n1" in answer["message"]
    assert (await n1("PUT", f"{REQUESTS}/own/approval", {}))[0] == 403
    assert (await n1("DELETE", f"{REQUESTS}/own"))[0] == 403


async def test_a_serving_certificate_waits_for_approval(n1: Api, api: Api) -> None:
    pem, _ = pem_request("system:node:n1", hosts=SERVING)
    usages = ["digital signature", "key encipherment", "server auth"]
    await n1.ok("POST", REQUESTS, request("serving", pem, KUBELET_SERVING, usages=usages))
    pem, _ = pem_request("system:node:n1")
    await n1.ok("POST", REQUESTS, request("after", pem))
    await signed(n1, "after")  # the controller has seen both
    assert (await api.ok("GET", f"{REQUESTS}/serving"))["status"] == {}
    await approve(api, "serving")
    certificate = await signed(n1, "serving")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == list(SERVING)
    assert certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment


async def test_a_plane_that_approves_serving_certificates_and_signs_for_seconds() -> None:
    approved = (KUBELET_CLIENT, KUBELET_SERVING)
    async with ControlPlane(approve=approved, certificate_seconds=60) as plane:
        async with open_api(plane, plane.node_kubeconfig("n1")) as n1:
            pem, _ = pem_request("system:node:n1", hosts=SERVING)
            await n1.ok("POST", REQUESTS, request("serving", pem, KUBELET_SERVING, expirationSeconds=3600))
            certificate = await signed(n1, "serving")
            life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
            assert timedelta(seconds=65) <= life <= timedelta(seconds=67)
        async with open_api(plane, plane.bootstrap_kubeconfig()) as machine:
            await machine.ok("POST", REQUESTS, request("by-another", pem, KUBELET_SERVING))
            pem, _ = pem_request("system:node:n2")
            await machine.ok("POST", REQUESTS, request("after", pem))
            await signed(machine, "after")
            assert (await machine.ok("GET", f"{REQUESTS}/by-another"))["status"] == {}


async def test_a_plane_that_approves_nothing() -> None:
    async with ControlPlane(approve=()) as plane:
        bootstrap = plane.bootstrap_kubeconfig()
        async with open_api(plane, plane.kubeconfig) as admin, open_api(plane, bootstrap) as machine:
            pem, _ = pem_request("system:node:n1")
            for name in ("first", "second"):
                await machine.ok("POST", REQUESTS, request(name, pem))
            await approve(admin, "second")
            await signed(machine, "second")
            assert (await admin.ok("GET", f"{REQUESTS}/first"))["status"] == {}
            await approve(admin, "first", "Denied")
            assert (await settled(machine, "first", "Denied"))["reason"] == "Test"
            status, answer = await admin(
                "PUT",
                f"{REQUESTS}/first/approval",
                {**request("first", pem), "status": {"conditions": [{"type": "Approved", "status": "True"}]}},
            )
            assert (status, answer["reason"]) == (422, "Invalid")
            assert 'may not remove a condition of type "Denied"' in answer["message"]


@pytest.mark.parametrize(
    ("changed", "field", "message"),
    [
        ({"request": "bm8="}, "spec.request", "expected one PEM block of type CERTIFICATE REQUEST"),
        ({"request": "%"}, "spec.request", "is not base64"),
        ({"signerName": ""}, "spec.signerName", "Required value"),
        ({"signerName": "kubernetes.io/legacy-unknown"}, "spec.signerName", "the legacy signerName is not allowed"),
        ({"signerName": "mine"}, "spec.signerName", "'example.com/signer-name'"),
        ({"usages": []}, "spec.usages", "Required value"),
        ({"usages": ["fly"]}, "spec.usages[0]", "Unsupported value"),
        ({"usages": ["any", "any"]}, "spec.usages[1]", "Duplicate value"),
        ({"expirationSeconds": 599}, "spec.expirationSeconds", "less than 600 seconds (10 minutes)"),
    ],
)
async def test_what_may_not_be_asked_for(api: Api, changed: Object, field: str, message: str) -> None:
    pem, _ = pem_request("system:node:n1")
    status, answer = await api("POST", REQUESTS, request("bad", pem, **changed))
    assert (status, answer["reason"]) == (422, "Invalid"), answer
    (cause,) = answer["details"]["causes"]
    assert cause["field"] == field
    assert message in cause["message"]


async def test_a_request_with_a_wrong_signature_is_refused(api: Api) -> None:
    pem, _ = pem_request("system:node:n1")
    der = bytearray(x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER))
    at = der.index(b"system:node:n1")
    der[at + len(b"system:node:n")] = ord("2")
    text = base64.encodebytes(bytes(der)).decode()
    wrong = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"
    status, answer = await api("POST", REQUESTS, request("bad", wrong.encode()))
    assert status == 422
    assert "not signed with its own key" in answer["message"]


async def test_only_one_request_in_a_file_is_taken(api: Api) -> None:
    """Others begin a block elsewhere, and would approve another request than is signed."""
    (one, _), (other, _) = pem_request("system:node:n1"), pem_request("system:node:n2")
    status, answer = await api("POST", REQUESTS, request("both", b"x" + one + other))
    assert status == 422
    assert "expected one PEM block" in answer["message"]


@pytest.mark.parametrize(
    ("signer", "subject", "hosts", "usages", "why"),
    [
        (KUBELET_CLIENT, ("bob", ("system:nodes",)), (), None, "common name does not begin with system:node:"),
        (KUBELET_CLIENT, ("system:node:n1", ("x",)), (), None, "organization is not system:nodes"),
        (KUBELET_CLIENT, ("system:node:n1", ("system:nodes",)), SERVING, None, "DNS subjectAltNames are not allowed"),
        (KUBELET_CLIENT, ("system:node:n1", ("system:nodes",)), (), ["server auth"], "usages did not match"),
        (KUBELET_SERVING, ("system:node:n1", ("system:nodes",)), (), None, "DNS or IP subjectAltName is required"),
        (
            KUBELET_SERVING,
            ("system:node:n1", ("system:nodes",)),
            (*SERVING, x509.RFC822Name("a@b.invalid")),
            None,
            "Email subjectAltNames are not allowed",
        ),
        (CLIENT, ("bob", ()), (), ["server auth"], "invalid usage for client certificate: server auth"),
    ],
)
async def test_what_is_approved_and_still_not_signed(
    api: Api,
    signer: str,
    subject: tuple[str, tuple[str, ...]],
    hosts: tuple[x509.GeneralName, ...],
    usages: list[str] | None,
    why: str,
) -> None:
    pem, _ = pem_request(*subject, hosts)
    body = request("odd", pem, signer)
    if usages:
        body["spec"]["usages"] = usages
    await api.ok("POST", REQUESTS, body)
    await approve(api, "odd")
    failed = await settled(api, "odd", "Failed")
    assert failed["reason"] == "SignerValidationFailure"
    assert why in failed["message"]
    assert "certificate" not in (await api.ok("GET", f"{REQUESTS}/odd"))["status"]


async def test_a_signer_of_ones_own(api: Api) -> None:
    pem, _ = pem_request("anyone", ())
    made = await api.ok("POST", REQUESTS, request("mine", pem, "example.com/mine"))
    path = f"{REQUESTS}/mine"
    wrong = {**made, "status": {"conditions": [{"type": "Approved", "status": "True"}]}}
    status, answer = await api("PUT", f"{path}/status", wrong)
    assert status == 422
    assert 'updates may not add a condition of type "Approved"' in answer["message"]
    status, answer = await api("PUT", f"{path}/approval", {**made, "status": {"conditions": [{"type": "Approved"}]}})
    assert "status.conditions[0].status: Required value" in answer["message"]
    both = [{"type": kind, "status": "True"} for kind in ("Approved", "Denied")]
    status, answer = await api("PUT", f"{path}/approval", {**made, "status": {"conditions": both}})
    assert "mutually exclusive" in answer["message"]
    approved = await approve(api, "mine")
    for certificate, why in (("bm8=", "at least one CERTIFICATE PEM block"), ("%", "not base64")):
        status, answer = await api("PUT", f"{path}/status", {**approved, "status": {"certificate": certificate}})
        assert (status, why in answer["message"]) == (422, True), answer
    ca = await api.ok("GET", "/api/v1/namespaces/default/configmaps/kube-root-ca.crt")
    text = base64.b64encode(ca["data"]["ca.crt"].encode()).decode()
    ready = {**approved, "status": {**approved["status"], "certificate": text}}
    made = await api.ok("PUT", f"{path}/status", ready)
    assert made["status"]["certificate"] == text
    status, answer = await api("PATCH", f"{path}/status", {"status": {"certificate": ""}}, media=MERGE)
    assert "may not modify existing certificate content" in answer["message"]
    changed = await api.ok(
        "PATCH", path, {"metadata": {"labels": {"a": "b"}}, "spec": {"usages": ["any"]}}, media=MERGE
    )
    assert (changed["metadata"]["labels"], changed["spec"]) == ({"a": "b"}, approved["spec"])
    assert changed["status"] == made["status"]


async def test_nobody_asks_for_masters(api: Api) -> None:
    pem, _ = pem_request("bob", ("system:masters",))
    status, answer = await api("POST", REQUESTS, request("boss", pem, CLIENT))
    assert status == 403
    assert "use of kubernetes.io/kube-apiserver-client signer with system:masters group" in answer["message"]


async def test_kubectl_approves_and_denies(kube: Kubectl, n1: Api) -> None:
    pem, _ = pem_request("system:node:n1", hosts=SERVING)
    for name in ("good", "bad"):
        await n1.ok("POST", REQUESTS, request(name, pem, KUBELET_SERVING, expirationSeconds=7200))
    table = (await kube("get", "csr", "good")).splitlines()
    assert table[0].split() == ["NAME", "AGE", "SIGNERNAME", "REQUESTOR", "REQUESTEDDURATION", "CONDITION"]
    assert table[1].split()[2:] == [KUBELET_SERVING, "system:node:n1", "120m", "Pending"]
    assert await kube("certificate", "approve", "good") == (
        "certificatesigningrequest.certificates.k8s.io/good approved\n"
    )
    await signed(n1, "good")
    assert "Approved,Issued" in await kube("get", "csr", "good")
    assert await kube("certificate", "deny", "bad") == "certificatesigningrequest.certificates.k8s.io/bad denied\n"
    assert (await kube("get", "csr", "bad", "--no-headers")).split()[-1] == "Denied"
    assert "system:nodes" in await kube("describe", "csr", "good")


async def test_who_may_ask_is_a_table(control_plane: ControlPlane, api: Api) -> None:
    pem, _ = pem_request("bob", ("team",))
    async with open_api(control_plane, control_plane.user_kubeconfig("bob", ["team"])) as bob:
        assert (await bob("POST", REQUESTS, request("bob", pem, CLIENT)))[0] == 403
        control_plane.grant("team", Rule(("create", "get", "list", "watch"), ("*",), "certificates.k8s.io"))
        await bob.ok("POST", REQUESTS, request("bob", pem, CLIENT))
        await approve(api, "bob")
        certificate = await signed(bob, "bob")
        assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "bob"
        assert (await bob("GET", "/api/v1/pods"))[0] == 403
        control_plane.revoke("team")
        assert (await bob("GET", REQUESTS))[0] == 403
