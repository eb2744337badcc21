"""The settings of `RemoteProvider`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import attrs
from wasmlet_agent.protocol.addresses import is_host, is_loopback

from wasmlet import ConfigError
from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.options import option

CONNECTIONS = 4
"""How many requests to an agent run at once. More would be slower: httpcore walks over all that wait."""


@attrs.frozen
class PushConfig(RegistryConfig):
    """Whether the node loop brings images to the agent, and how it pulls them."""

    push_images: bool = option(False, help="Pull images here and bring them to the agent, which needs no registry.")
    registry_auth_file: Path | None = option(None, help="Docker's config.json with the node's own credentials.")


@attrs.frozen
class Config(PushConfig):
    """Where the agent is, and what both sides show each other."""

    endpoint: str = option("https://127.0.0.1:8443", help="URL of the agent; http:// to a loopback address only.")
    protocol: str = option("wasmlet", help="What is spoken at the endpoint: wasmlet, or a plugin's interlink.")
    tls_ca_file: Path | None = option(None, help="Authorities that vouch for the agent; the system's without it.")
    tls_cert_file: Path | None = option(None, help="Certificate to show the agent, with --tls-key-file.")
    tls_key_file: Path | None = option(None, help="Key of --tls-cert-file.")
    token_file: Path | None = option(None, help="File with the token to show the agent.")
    connections: int = option(CONNECTIONS, least=1, most=64, help="Requests to the agent that are under way at once.")

    def check(self) -> None:
        """See that the settings fit together.

        Raises:
            ConfigError: they do not; the message says what to do.
        """
        if self.protocol != "wasmlet":
            where = "say interlink with --protocol or WASMLET_PROTOCOL, which is looked at before anything else"
            raise ConfigError(f"protocol: expected wasmlet, found {self.protocol!r}; {where}")
        try:
            url = urlsplit(self.endpoint)
            host, _ = url.hostname, url.port
        except ValueError:
            host = None
        if (
            not host
            or not is_host(host)
            or url.scheme not in ("http", "https")
            or url.path not in ("", "/")
            or url.query
            or url.username
        ):
            raise ConfigError("endpoint: expected the URL of an agent, as https://device:8443; set it with --endpoint")
        if url.scheme == "http" and not is_loopback(host):
            raise ConfigError(
                f"endpoint: expected https:// or a loopback address, found {self.endpoint}: without TLS anybody on the "
                "way could read the pods' secrets; `wasmlet-agent keys` makes what both sides need"
            )
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ConfigError("tls-cert-file and tls-key-file belong together: give both or neither")
