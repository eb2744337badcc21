"""The certificates of the node's HTTPS API.

The server begins with one that it has signed itself, made anew at each start; its key never leaves memory.
`wasmlet.node.serving` has the cluster sign another.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wasmlet.errors import ConfigError
from wasmlet.tls import show, trust

log = structlog.get_logger(__name__)

LIFE = datetime.timedelta(days=365)


class ServerTls:
    """TLS for the node's API, which follows its client CA file: who is trusted changes as soon as the file does.

    An `ssl.SSLContext` can be given more CAs, but none can be taken away. So connections are accepted with `context`,
    which hands each of them to a second context. That one is made anew when the file has changed. A file that cannot be
    read changes nothing. (A callback for the server's name could choose the second context, too. But Python prints a
    traceback for a name that is not ASCII.)

    Args:
        client_ca: of the clients that may use the API, as a file or in PEM; None trusts no certificate.

    Raises:
        ConfigError: the client CA cannot be read.
    """

    def __init__(self, client_ca: Path | bytes | None) -> None:
        self._client_ca = client_ca
        self._seen = self._look()
        self._present = server_context(client_ca)
        self._pem = b""
        self.context = _Chosen(ssl.PROTOCOL_TLS_SERVER)
        self.context.choose = self._choose

    def show(self, pem: bytes) -> None:
        """Present this certificate from the next handshake on; connections that are open keep theirs.

        To be called on the event loop that serves: a handshake that sees the certificate and not yet its key fails.

        Args:
            pem: the private key and the certificate, followed by any intermediate certificates.
        """
        self._pem = pem
        show(self._present, pem, pem)

    def _choose(self) -> ssl.SSLContext:
        """Called for each connection."""
        if (found := self._look()) != self._seen:
            self._seen = found
            self._read()
        return self._present

    def _read(self) -> None:
        try:
            changed = server_context(self._client_ca)
            show(changed, self._pem, self._pem)
        except (ConfigError, ValueError) as error:
            log.warning("the client CA has changed and cannot be read: the one before stays", error=str(error))
            return
        self._present = changed
        log.info("the node's API trusts the clients of a new CA file", file=str(self._client_ca))

    def _look(self) -> tuple[int, ...]:
        """What changes with the file, whether it is written again or another one takes its place."""
        try:
            found = os.stat(self._client_ca if isinstance(self._client_ca, Path) else os.devnull)
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class _Chosen(ssl.SSLContext):
    """A context that leaves each connection to another one."""

    choose: Callable[[], ssl.SSLContext]

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        connection: ssl.SSLObject = self.choose().wrap_bio(*args, **options)
        return connection


def server_context(client_ca: Path | bytes | None) -> ssl.SSLContext:
    """TLS for the node's API, still without a certificate of its own.

    With a client CA, a client is asked for a certificate, but does not need one: it may have a token. A certificate
    that this CA has not signed ends the handshake.

    Raises:
        ConfigError: the client CA cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Every connection shows its certificate: a resumed one would go on with what was trusted then.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    if client_ca is None:
        return context
    context.verify_mode = ssl.CERT_OPTIONAL
    try:
        trust(context, client_ca if isinstance(client_ca, bytes) else client_ca.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        file = f" {client_ca}" if isinstance(client_ca, Path) else ""
        raise ConfigError(f"--client-ca-file{file}: expected PEM certificates: {reason}") from None
    return context


def self_signed(node_name: str, ip: str, now: datetime.datetime) -> bytes:
    """A key and a certificate for it, as PEM, for this name and address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node_name}"[:64]),
        ]
    )
    names: list[x509.GeneralName] = [x509.DNSName(node_name)]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(ip)))
    except ValueError:
        names.append(x509.DNSName(ip))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
