"""The settings of a host: its own ones, and those that all of its nodes share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from wasmlet_agent.protocol.listening import ListenConfig

from wasmlet import NodeConfig
from wasmlet.options import content_of, option

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
class HostConfig(ListenConfig):
    """Where agents dial in, and where the host keeps whom it knows."""

    tls_ca_file: Path | None = option(
        None, help="Authority of that certificate, shown to agents that know its hash; the certificate without it."
    )
    namespace: str = option("wasmlet", help="Namespace of the Secrets with join tokens and agents' keys.")
    pool: str = option("", help="Only the agents whose token is of this pool; all without it.")

    def __attrs_post_init__(self) -> None:
        self.check_listening()

    def authorities(self) -> bytes:
        """PEM certificates among which an agent finds the one whose hash it knows.

        Raises:
            ConfigError: a file cannot be read.
        """
        files = [(self.tls_ca_file, "--tls-ca-file"), (self.tls_cert_file, "--tls-cert-file")]
        return b"\n".join(content_of(file, flag) for file, flag in files if file is not None)


def node_config(common: NodeConfig, name: str) -> NodeConfig:
    """The settings of one node, made of those that hold for all."""
    kept = {key: getattr(common, key) for key in EACH}
    directory = common.state_dir / name if common.state_dir is not None else None
    given: dict[str, Any] = kept | {"node_name": name, "state_dir": directory, "port": 0, "impersonate_node": True}
    return NodeConfig(**given)
