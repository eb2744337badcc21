"""Makes TLS contexts from certificates in memory, with the same rules on each version of Python.

A client verifies servers by the rules of Go, in which kubectl, the kubelet and clients of registries are written. A CA
certificate needs no key identifiers (that of EKS has none; Python 3.13 refuses it by default). A chain may end at any
trusted certificate. A server's name must be among the subject alternative names of its certificate.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import tempfile
from collections.abc import Iterator

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")


def client_context(authorities: bytes | None = None, *, system: bool | None = None) -> ssl.SSLContext:
    """A context that verifies servers.

    Args:
        authorities: PEM certificates to trust.
        system: trust the system's authorities too; None means only where no others are given.

    Raises:
        ValueError: there is no certificate in `authorities`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags = (context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    if ssl.HAS_NEVER_CHECK_COMMON_NAME:
        context.hostname_checks_common_name = False
    if authorities is not None:
        trust(context, authorities)
    if system or (system is None and authorities is None):
        context.load_default_certs()
    return context


def unverified_context() -> ssl.SSLContext:
    """A context that accepts every server without verifying it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def trust(context: ssl.SSLContext, authorities: bytes) -> None:
    """Trust these PEM certificates. Text between them is ignored, and so is a certificate that cannot be read.

    Raises:
        ValueError: there is no certificate that can be read.
    """
    count, reason = 0, "no PEM block CERTIFICATE"
    for block in _CERTIFICATE.findall(authorities):
        try:
            context.load_verify_locations(cadata=block.decode("ascii"))
            count += 1
        except (ssl.SSLError, ValueError):
            reason = "a PEM block CERTIFICATE that holds no certificate"
    if not count:
        raise ValueError(f"expected certificates in PEM, found {reason}")


def show(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Present this certificate to the other side from the next handshake on.

    Args:
        certificate: PEM; intermediate certificates follow the certificate itself.
        key: its private key, PEM.

    Raises:
        ValueError: they are not a certificate and a key, do not belong together, or the key is encrypted.
    """
    try:
        with _file(certificate) as certificate_file, _file(key) as key_file:
            context.load_cert_chain(certificate_file, key_file, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError("expected a certificate and its key, found a key of another certificate") from None
        raise ValueError(f"expected a certificate and its private key in PEM ({error.reason or error})") from None


def _no_password() -> str:
    # Without this, OpenSSL would ask for the password on the terminal and block.
    raise ValueError("expected a private key without a password, found an encrypted one")


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    """The name of a temporary file with this content, for the TLS library, which reads keys only from files.

    The file lasts as long as the context manager. On Linux it is in memory; elsewhere it is a private file on disk.
    """
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        handle = os.memfd_create("wasmlet-tls")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{handle}"
    else:
        with tempfile.NamedTemporaryFile(prefix="wasmlet-") as named:
            named.write(content)
            named.flush()
            yield named.name
