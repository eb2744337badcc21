"""Keys and certificates: an authority, server and client certificates, all ECDSA P-256 and all in memory.

One authority signs the certificates of the API server and of its clients, and the client certificate with which the API
server calls kubelets. It is so in a cluster made by kubeadm, too, so a kubelet needs only this one authority.
`ControlPlane` writes to disk the files that others must read.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = timedelta(days=365)
SKEW = timedelta(hours=1)


@attrs.frozen
class Pair:
    """A certificate and its private key, PEM."""

    certificate: bytes
    key: bytes


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(common: str, organizations: Iterable[str] = ()) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, authority: bool, encipherment: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


class Authority:
    """A certificate authority, with a new key."""

    def __init__(self, name: str, now: datetime) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._now = now
        subject = _name(name)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(identifier, critical=False)
        )
        self._identifier = identifier
        self._certificate = builder.sign(self._key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def _issue(
        self,
        subject: x509.Name,
        public: CertificatePublicKeyTypes,
        usage: x509.ObjectIdentifier,
        names: Sequence[x509.GeneralName] = (),
        *,
        period: tuple[datetime, datetime] | None = None,
        encipherment: bool = False,
    ) -> bytes:
        """A certificate, PEM; `period` is from when to when it is valid, at most `LIFE` from now."""
        start, end = period or (self._now - SKEW, self._now + LIFE)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(min(end, self._now + LIFE))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False, encipherment=encipherment), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier), critical=False
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def sign(
        self,
        request: x509.CertificateSigningRequest,
        names: Sequence[x509.GeneralName],
        *,
        server: bool,
        encipherment: bool,
        start: datetime,
        end: datetime,
    ) -> bytes:
        """A certificate for a request: its subject, its key and these alternative names; PEM."""
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        return self._issue(
            request.subject, request.public_key(), usage, names, period=(start, end), encipherment=encipherment
        )

    def server(self, hosts: Iterable[str]) -> Pair:
        """A server certificate for these names and addresses."""
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        key = ec.generate_private_key(ec.SECP256R1())
        common = _name("kube-apiserver")
        return Pair(self._issue(common, key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH, names), _pem(key))

    def client(self, user: str, groups: Iterable[str] = ()) -> Pair:
        """A client certificate: the user is its common name, the groups are its organizations."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(user, groups)
        return Pair(self._issue(subject, key.public_key(), ExtendedKeyUsageOID.CLIENT_AUTH), _pem(key))
