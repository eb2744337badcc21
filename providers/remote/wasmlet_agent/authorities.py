"""The certificate authority of a host, for an agent that knows only the hash of its public key.

The host sends its authorities over a connection that nobody has verified. The hash shows which of them to trust.
"""

from __future__ import annotations

import hashlib
import secrets

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wasmlet.errors import ConfigError


def ca_hash(certificate: x509.Certificate) -> str:
    """The hash of an authority's public key, in the form of `--ca-hash`, which is also that of kubeadm."""
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
