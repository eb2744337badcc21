"""`wasmlet-agent keys`: makes the certificates and the token with which an agent and its node loop know each other."""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from wasmlet.errors import ConfigError

_SINCE = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
"""From when certificates hold. A device without a battery starts with a clock in the past, and its node loop has to be
let in before the clock is set."""

_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@attrs.frozen
class _Issued:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def make_keys(directory: Path, names: Sequence[str], until: datetime.datetime) -> None:
    """Make a CA, a certificate for the agent, one for its node loop, and a token, as files of mode 0600; blocks.

    Args:
        directory: made if need be.
        names: host names and addresses at which the agent is reached.
        until: when the certificates end.

    Raises:
        ConfigError: the directory has some of these files, or cannot be written; or a name is none.
    """
    alternatives = [_alternative(name) for name in names]
    authority = _issue("wasmlet-agent CA", until, None, [x509.BasicConstraints(ca=True, path_length=0), _SIGNS])
    agent = _issue(
        names[0],
        until,
        authority,
        [_usage(ExtendedKeyUsageOID.SERVER_AUTH), x509.SubjectAlternativeName(alternatives)],
    )
    client = _issue("wasmlet-remote", until, authority, [_usage(ExtendedKeyUsageOID.CLIENT_AUTH)])
    files = {
        "ca.key": authority.key_pem,
        "ca.crt": authority.pem,
        "agent.key": agent.key_pem,
        "agent.crt": agent.pem,
        "client.key": client.key_pem,
        "client.crt": client.pem,
        "token": secrets.token_urlsafe(32).encode() + b"\n",
    }
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = [name for name in files if (directory / name).exists()]
        if there:
            raise ConfigError(f"{directory} has {', '.join(there)}; name another directory, or remove them")
        for name, content in files.items():
            descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}") from None


def commands(directory: Path, name: str, port: int) -> str:
    """The two commands that use the files."""
    host = f"[{name}]" if ":" in name else name
    return f"""\
On this machine, the agent:

  wasmlet-agent --provider wasmtime --listen 0.0.0.0:{port} \\
    --tls-cert-file {directory}/agent.crt --tls-key-file {directory}/agent.key \\
    --client-ca-file {directory}/ca.crt --token-file {directory}/token

Where the API server can be reached, with copies of ca.crt, client.crt and client.key (or of ca.crt and token, with
--token-file token), the node loop:

  wasmlet-remote --endpoint https://{host}:{port} --kubeconfig KUBECONFIG \\
    --tls-ca-file ca.crt --tls-cert-file client.crt --tls-key-file client.key

Nobody needs {directory}/ca.key but to sign more certificates: move it to a safe place, or remove it."""


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    labels = name.removeprefix("*.").split(".")
    fine = all(label and len(label) < 64 and label.replace("-", "a").replace("_", "a").isalnum() for label in labels)
    if not (fine and name.isascii() and len(name) < 254):
        raise ConfigError(f"expected a host name or an address, found {name!r}")
    return x509.DNSName(name)


def _usage(usage: ObjectIdentifier) -> x509.ExtensionType:
    return x509.ExtendedKeyUsage([usage])


def _issue(
    name: str, until: datetime.datetime, authority: _Issued | None, extensions: Sequence[x509.ExtensionType]
) -> _Issued:
    """A key, and a certificate for it that the authority has signed; one that signed itself without an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    signer = authority.key if authority is not None else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_SINCE)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(
            extension, critical=isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
        )
    return _Issued(key, builder.sign(signer, hashes.SHA256()))
