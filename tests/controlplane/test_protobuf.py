"""Bodies in protobuf: those that kubectl sends, and bytes that are none."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.controlplane.client import Api, Kubectl
from wasmlet.controlplane.access.rules import Rule
from wasmlet.controlplane.http import protobuf
from wasmlet.controlplane.storage.status import ApiError
from wasmlet.testing import ControlPlane

MAGIC = b"k8s\0"


def field(number: int, value: bytes | int) -> bytes:
    """A field of a message, encoded as protobuf says."""

    def varint(left: int) -> bytes:
        out = b""
        while left >= 0x80:
            out += bytes([left & 0x7F | 0x80])
            left >>= 7
        return out + bytes([left])

    if isinstance(value, int):
        return varint(number << 3) + varint(value & (1 << 64) - 1)
    return varint(number << 3 | 2) + varint(len(value)) + value


def envelope(version: str, kind: str, raw: bytes) -> bytes:
    about = field(1, version.encode()) + field(2, kind.encode())
    return MAGIC + field(1, about) + field(2, raw) + field(3, b"") + field(4, b"")


def test_a_certificate_signing_request_is_read() -> None:
    meta = field(1, b"csr-1") + field(6, b"7") + field(8, b"") + field(11, field(1, b"a") + field(2, b"b"))
    spec = field(1, b"PEM") + field(2, b"boss") + field(5, b"client auth") + field(5, b"signing") + field(8, 600)
    condition = field(1, b"Approved") + field(2, b"") + field(6, b"True") + field(5, field(1, 86400))
    raw = field(1, meta) + field(2, spec) + field(3, field(1, condition) + field(2, b""))
    found = protobuf.decode(envelope("certificates.k8s.io/v1", "CertificateSigningRequest", raw))
    assert found == {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "csr-1", "resourceVersion": "7", "labels": {"a": "b"}},
        "spec": {"request": "UEVN", "usages": ["client auth", "signing"], "expirationSeconds": 600},
        "status": {
            "conditions": [{"type": "Approved", "status": "True", "lastTransitionTime": "1970-01-02T00:00:00Z"}]
        },
    }


def test_numbers_may_be_negative() -> None:
    raw = field(2, field(4, -1))
    assert protobuf.decode(envelope("authentication.k8s.io/v1", "TokenRequest", raw))["spec"] == {
        "expirationSeconds": -1
    }


def test_another_kind_is_left_to_json() -> None:
    with pytest.raises(protobuf.UnknownKind, match="Pod"):
        protobuf.decode(envelope("v1", "Pod", b""))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        MAGIC + b"\xff",
        MAGIC + b"\x80" * 20,
        MAGIC + field(1, b"x")[:-1],
        MAGIC + field(1, 7),
        MAGIC + b"\x0b",
        envelope("authentication.k8s.io/v1", "TokenRequest", field(2, 7)),
        envelope("authentication.k8s.io/v1", "TokenRequest", field(2, field(4, b"x"))),
        envelope("authentication.k8s.io/v1", "TokenRequest", field(1, field(1, b"\xff"))),
    ],
)
def test_what_is_no_protobuf_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        protobuf.decode(body)
    assert refused.value.code == 400


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, wrapped: bool) -> None:
    body = envelope("certificates.k8s.io/v1", "CertificateSigningRequest", data) if wrapped else MAGIC + data
    with contextlib.suppress(ApiError, protobuf.UnknownKind):
        assert protobuf.decode(body)["kind"] == "CertificateSigningRequest"


async def test_kubectl_asks_what_it_may(kube: Kubectl, control_plane: ControlPlane) -> None:
    assert await kube("auth", "can-i", "delete", "pods") == "yes\n"
    bob = Kubectl(kube.program, control_plane.user_kubeconfig("bob"), kube.home)
    assert (await bob.run("auth", "can-i", "get", "pods", "--subresource=log"))[:2] == (1, "no\n")
    control_plane.grant("bob", Rule(("get",), ("pods/log",), namespace="default"))
    assert await bob("auth", "can-i", "get", "pods", "--subresource=log") == "yes\n"
    assert (await bob.run("auth", "can-i", "get", "pods", "--subresource=log", "-n", "kube-system"))[:2] == (1, "no\n")


async def test_kubectl_makes_a_token(kube: Kubectl, api: Api) -> None:
    token = (await kube("create", "token", "default", "--duration=20m", "--audience=vault")).strip()
    asked = {"spec": {"token": token, "audiences": ["vault"]}}
    review = await api.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", asked)
    assert review["status"]["user"]["username"] == "system:serviceaccount:default:default"
    code, _, err = await kube.run("create", "token", "default", "--duration=5m")
    assert code != 0
    assert "spec.expirationSeconds" in err
