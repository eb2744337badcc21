"""Who vouches for a host, where an agent knows no more of it than a hash."""

from __future__ import annotations

import hashlib
import secrets

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wasmlet.errors import ConfigError


def ca_hash(certificate: x509.Certificate) -> str:
    """What `--ca-hash` takes for an authority: the hash of its public key, as kubeadm has it."""
    public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(public).hexdigest()


def meant(authorities: bytes, digest: str) -> str:
    """The certificate among these whose public key has that hash, in PEM.

    Raises:
        ConfigError: there is none.
    """
    try:
        found = x509.load_pem_x509_certificates(authorities)
    except ValueError:
        found = []
    for certificate in found:
        if secrets.compare_digest(ca_hash(certificate), digest):
            return certificate.public_bytes(Encoding.PEM).decode()
    raise ConfigError("the host shows no authority with the hash that --ca-hash names: it is another one, or forged")
