"""Private keys, requests for certificates, and the files that hold them.

Keys are ECDSA P-256. Their files are made with mode 0600, so that only their owner may read them. No object shows its
key in its text form, so that none gets into a log.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
from datetime import datetime
from pathlib import Path
from typing import Self

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from wasmlet import files
from wasmlet.errors import ConfigError

NAME_LENGTH = 64
"""The longest common name of a certificate (RFC 5280, ub-common-name)."""
_REQUEST = re.compile(
    rb"\s*-----BEGIN CERTIFICATE REQUEST-----\r?\n([A-Za-z0-9+/\r\n]+={0,2})\s*-----END CERTIFICATE REQUEST-----\s*"
)
_EXTENSIONS = ("1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14")
"""Attributes of a request that ask for extensions, of PKCS #9 and Microsoft's; some readers know the first alone."""


def read_request(data: bytes) -> x509.CertificateSigningRequest:
    """Read a certificate request from PEM, strictly: any other program must find the same request in this data.

    Readers of PEM differ in where they let a block begin. So the data must be one block, and nothing else.

    Raises:
        ValueError: it is not the PEM of one request, or that is not signed with the key that it names.
    """
    found = _REQUEST.fullmatch(data)
    if found is None:
        raise ValueError("expected one PEM block of type CERTIFICATE REQUEST and nothing before or after it")
    try:
        request = x509.load_der_x509_csr(base64.b64decode(b"".join(found[1].split()), validate=True))
        asking = [one for one in request.attributes if one.oid.dotted_string in _EXTENSIONS]
        sound = request.is_signature_valid
    except (binascii.Error, InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError) as error:
        raise ValueError(f"cannot be read: {error}") from None
    if not sound:
        raise ValueError("the request is not signed with its own key")
    if len(asking) > 1 or any(one.oid.dotted_string != _EXTENSIONS[0] for one in asking):
        raise ValueError("the request asks for extensions in more than one place, or in Microsoft's way")
    return request


@attrs.frozen
class Wanted:
    """The names that a certificate has to contain."""

    common_name: str
    organizations: tuple[str, ...] = ()
    dns: frozenset[str] = frozenset()
    ips: frozenset[str] = frozenset()


@attrs.frozen
class Pair:
    """A private key and the certificate for it, followed by any intermediate certificates.

    Attributes:
        pem: all of them, the key first.
        not_before, not_after: the certificate's life, in UTC.
        names: the names that it contains.
    """

    pem: bytes = attrs.field(repr=False)
    not_before: datetime
    not_after: datetime
    names: Wanted

    @classmethod
    def parse(cls, pem: bytes) -> Self:
        """Read a key and certificates.

        Raises:
            ValueError: they are not that, or do not belong together.
        """
        key = serialization.load_pem_private_key(pem, None)
        certificate, *_ = x509.load_pem_x509_certificates(pem)
        if certificate.public_key() != key.public_key():
            raise ValueError("the certificate is for another key")

        def texts(oid: x509.ObjectIdentifier) -> list[str]:
            return [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(oid)]

        try:
            others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            others = x509.SubjectAlternativeName([])
        names = Wanted(
            next(iter(texts(NameOID.COMMON_NAME)), ""),
            tuple(texts(NameOID.ORGANIZATION_NAME)),
            frozenset(others.get_values_for_type(x509.DNSName)),
            frozenset(map(str, others.get_values_for_type(x509.IPAddress))),
        )
        return cls(pem, certificate.not_valid_before_utc, certificate.not_valid_after_utc, names)

    def valid(self, now: datetime) -> bool:
        return self.not_before <= now < self.not_after

    def says(self, wanted: Wanted) -> bool:
        """Whether the certificate contains all names that are wanted. It may contain more."""
        has = self.names
        return (
            has.common_name == wanted.common_name
            and {*has.organizations} >= {*wanted.organizations}
            and has.dns >= wanted.dns
            and has.ips >= wanted.ips
        )


def new_key() -> bytes:
    """A private key, PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def request_for(key: bytes, wanted: Wanted) -> bytes:
    """A request for a certificate (PKCS #10, PEM).

    Raises:
        ConfigError: the common name is too long for a certificate.
        ValueError: the key cannot be read.
    """
    if len(wanted.common_name) > NAME_LENGTH:
        most = NAME_LENGTH - len("system:node:")
        raise ConfigError(
            f"node name: expected at most {most} characters, for a certificate to hold it; set it with --node-name"
        )
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, text) for text in wanted.organizations]
    subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, wanted.common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    others: list[x509.GeneralName] = [x509.DNSName(name) for name in sorted(wanted.dns)]
    others += [x509.IPAddress(ipaddress.ip_address(address)) for address in sorted(wanted.ips)]
    if others:
        builder = builder.add_extension(x509.SubjectAlternativeName(others), critical=False)
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def request_name(key: bytes, wanted: Wanted, signer: str) -> str:
    """The name of the request's object: the same after a restart, and another one for another key or content."""
    public = serialization.load_pem_private_key(key, None).public_key()
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(spki)
    for text in (signer, wanted.common_name, *wanted.organizations, "", *sorted(wanted.dns), "", *sorted(wanted.ips)):
        digest.update(b"\0" + text.encode())
    return f"node-csr-{digest.hexdigest()[:40]}"


def write_private(path: Path, data: bytes) -> None:
    """Write a file for its owner alone, in one piece: a reader sees the old file or the new one.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        files.replace(path, data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None
