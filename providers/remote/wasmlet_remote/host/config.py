"""The settings of a host: its own, and those of a node that are the same for all of its nodes."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import attrs
from wasmlet_agent.protocol.addresses import is_loopback, listen_address

from wasmlet import ConfigError, NodeConfig
from wasmlet.options import option
from wasmlet.tls import show

EACH = (
    "cluster_dns",
    "cluster_domain",
    "client_ca_file",
    "kubeconfig",
    "max_pods",
    "node_ip",
    "node_labels",
    "register_with_taints",
    "serving_csr",
    "serving_signer",
    "state_dir",
    "system_reserved",
)
"""Fields of `NodeConfig` that hold for every node of a host."""


@attrs.frozen
class HostConfig:
    """Where agents dial in, and where the host keeps whom it knows."""

    listen: str = option("127.0.0.1:8443", help="ADDRESS:PORT where agents dial in; port 0 takes a free one.")
    tls_cert_file: Path | None = option(None, help="The host's certificate, in PEM; plain HTTP, on loopback, without.")
    tls_key_file: Path | None = option(None, help="The key of the host's certificate, in PEM.")
    tls_ca_file: Path | None = option(
        None, help="Authority of that certificate, shown to agents that know its hash; the certificate without it."
    )
    namespace: str = option("wasmlet", help="Namespace of the Secrets with join tokens and agents' keys.")

    def __attrs_post_init__(self) -> None:
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

    def context(self) -> ssl.SSLContext | None:
        """TLS for what agents dial; None for plain HTTP.

        Raises:
            ConfigError: a file cannot be read, or holds something else.
        """
        if self.tls_cert_file is None or self.tls_key_file is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            show(context, _read(self.tls_cert_file, "--tls-cert-file"), _read(self.tls_key_file, "--tls-key-file"))
        except ValueError as error:
            raise ConfigError(f"TLS of --listen: {error}") from None
        return context

    def authorities(self) -> bytes:
        """PEM certificates among which an agent finds the one whose hash it knows.

        Raises:
            ConfigError: a file cannot be read.
        """
        files = [(self.tls_ca_file, "--tls-ca-file"), (self.tls_cert_file, "--tls-cert-file")]
        return b"\n".join(_read(file, flag) for file, flag in files if file is not None)


def node_config(common: NodeConfig, name: str) -> NodeConfig:
    """The settings of one node, made of those that hold for all."""
    kept = {key: getattr(common, key) for key in EACH}
    directory = common.state_dir / name if common.state_dir is not None else None
    given: dict[str, Any] = kept | {"node_name": name, "state_dir": directory, "port": 0, "impersonate_node": True}
    return NodeConfig(**given)


def _read(file: Path, flag: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{flag} {file}: {error.strerror}") from None
