"""The settings of whoever listens: an agent, and a host that agents dial."""

from __future__ import annotations

import ssl
from pathlib import Path

import attrs

from wasmlet.errors import ConfigError
from wasmlet.options import content_of, option
from wasmlet.tls import show, trust
from wasmlet_agent.protocol.addresses import is_loopback, listen_address

PORT = 8443


@attrs.frozen(slots=False)  # one of several bases
class ListenConfig:
    """Where to listen, and what is shown to whoever connects."""

    listen: str = option(f"127.0.0.1:{PORT}", help="ADDRESS:PORT to serve at; port 0 takes a free one.")
    tls_cert_file: Path | None = option(
        None, help="The certificate to show, in PEM; without it plain HTTP, on loopback only."
    )
    tls_key_file: Path | None = option(None, help="The key of that certificate, in PEM.")

    def check_listening(self) -> None:
        """See that the settings fit together.

        Raises:
            ConfigError: they do not.
        """
        address, _ = self.address
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ConfigError("give --tls-cert-file and --tls-key-file both, or neither")
        if self.tls_cert_file is None and not is_loopback(address):
            raise ConfigError(
                f"--listen {self.listen}: plain HTTP is for loopback only; give --tls-cert-file and --tls-key-file "
                "(`wasmlet-agent keys DIR NAME` makes them)"
            )

    @property
    def address(self) -> tuple[str, int]:
        """Address and port to listen at.

        Raises:
            ConfigError: `listen` has another form.
        """
        return listen_address(self.listen)

    def context(self, client_ca_file: Path | None = None) -> ssl.SSLContext | None:
        """TLS for what connects; None for plain HTTP. Blocks.

        Args:
            client_ca_file: of the certificates that a client may show; it need not show one.

        Raises:
            ConfigError: a file cannot be read, or holds something else.
        """
        if self.tls_cert_file is None or self.tls_key_file is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        certificate, key = (
            content_of(self.tls_cert_file, "--tls-cert-file"),
            content_of(self.tls_key_file, "--tls-key-file"),
        )
        try:
            show(context, certificate, key)
            if client_ca_file is not None:
                context.verify_mode = ssl.CERT_OPTIONAL
                trust(context, content_of(client_ca_file, "--client-ca-file"))
        except ValueError as error:
            raise ConfigError(f"TLS of --listen: {error}") from None
        return context
