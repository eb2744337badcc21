"""The settings of a node, each of them a flag, a `WASMLET_*` variable and a TOML key (see `wasmlet.options`)."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import Literal, cast

import attrs

from wasmlet.errors import ConfigError
from wasmlet.model.quantity import Quantity
from wasmlet.options import check_state_directory, option, state_directory
from wasmlet.provider import Taint

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
MOST_NAME = 63
"""The Node's label kubernetes.io/hostname has its name, and the value of a label is no longer."""
OWN_LABELS = ("kubernetes.io/os", "kubernetes.io/arch", "kubernetes.io/hostname", "wasmlet.dev/provider")
_WORD = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"(?:{_NAME.pattern}/)?{_WORD}")
_LABEL_VALUE = re.compile(rf"(?:{_WORD})?")
_TAINT = re.compile(r"([^=:]+)(?:=([^:]*))?:(NoSchedule|PreferNoSchedule|NoExecute)")

CLOSED = 0o022
"""What the mode of the state directory may not have: nobody else writes to it."""


@attrs.frozen
class NodeConfig:
    """How the node presents itself, and where it keeps what it needs."""

    kubeconfig: Path | None = option(None, help="Credentials of the node; KUBECONFIG or the pod's account without it.")
    bootstrap_kubeconfig: Path | None = option(
        None, help="Credentials that get the node its own ones, kept in the state directory or as --kubeconfig."
    )
    impersonate_node: bool = option(
        False, help="Make requests as system:node:NAME with these credentials, which need the right to impersonate it."
    )
    node_name: str = option(factory=lambda: socket.gethostname().lower(), help="Name of the Node object.")
    node_ip: str | None = option(None, help="Address the API server reaches this node at; found out without it.")
    port: int = option(10250, most=65535, help="Port of the node's HTTPS API; 0 takes a free one.")
    client_ca_file: Path | None = option(
        None, help="CA of the clients that may use the node's API; the kubeconfig's CA without it."
    )
    serving_csr: bool = option(
        True, help="Have the cluster sign the certificate of the node's API; it is self-signed until then."
    )
    serving_signer: str = option(
        "kubernetes.io/kubelet-serving", help="Signer of that certificate; EKS has one of its own."
    )
    healthz_port: int = option(
        0,
        most=65535,
        help="Port on loopback that serves /healthz alone, without TLS (a kubelet's is 10248); 0 serves none.",
    )
    streaming_connection_idle_timeout: float = option(
        4 * 3600.0,
        help="After how many seconds without a byte an exec, attach or port-forward is ended; 0 for never.",
    )
    cluster_dns: tuple[str, ...] = option(
        (),
        help="Address of the cluster's DNS service, for pods' resolv.conf; may be repeated; the node's own without it.",
    )
    cluster_domain: str = option("cluster.local", help="Domain that the cluster's DNS service serves.")
    max_pods: int = option(1000, least=1, help="How many pods the node takes.")
    node_labels: tuple[str, ...] = option((), help="KEY=VALUE label to register the node with; may be repeated.")
    register_with_taints: tuple[str, ...] = option(
        (), help="KEY=VALUE:EFFECT taint beside the provider's own; may be repeated."
    )
    provider_id: str | None = option(
        None, help="The Node's providerID, wasmlet://NAME without it; '' for none. It cannot be changed later."
    )
    system_reserved: str = option(
        "", help="NAME=QUANTITY,... that pods are not given (cpu=100m,memory=256Mi), as a kubelet's."
    )
    state_dir: Path | None = option(
        None, help="Directory that outlives the process; below /run or the user's without it."
    )
    drain_on_exit: bool = option(False, help="End all pods when the node stops, instead of leaving them running.")
    drain_seconds: float = option(60.0, help="How long ending all pods may take, with --drain-on-exit.")

    def __attrs_post_init__(self) -> None:
        if not _NAME.fullmatch(self.node_name) or len(self.node_name) > MOST_NAME:
            raise ConfigError(
                f"node name: expected at most {MOST_NAME} lower-case letters, digits, '-' and '.', "
                f"found {self.node_name!r}; set it with --node-name"
            )
        if self.impersonate_node and self.bootstrap_kubeconfig is not None:
            raise ConfigError(
                "expected --impersonate-node or --bootstrap-kubeconfig, found both: with the one the node needs no "
                "credentials of its own, with the other it gets them"
            )
        if self.node_ip is not None:
            try:
                ipaddress.ip_address(self.node_ip)
            except ValueError:
                found = f"found {self.node_ip!r}; set it with --node-ip"
                raise ConfigError(f"node ip: expected an IP address, {found}") from None
        _ = self.labels, self.taints, self.reserved  # so that a wrong one is told at once

    @property
    def labels(self) -> dict[str, str]:
        """`node_labels` by key.

        Raises:
            ConfigError: one is no label, or says what this node is.
        """
        labels = {}
        for text in self.node_labels:
            key, equals, value = text.partition("=")
            if not key or not equals:
                raise ConfigError(f"node label: expected KEY=VALUE, found {text!r}; set it with --node-labels")
            if not (_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)):
                raise ConfigError(
                    "node label: expected [DOMAIN/]NAME=VALUE, each at most 63 letters, digits, '-', '_' and '.', "
                    f"with a letter or a digit at both ends, found {text!r}; set it with --node-labels"
                )
            if key in OWN_LABELS:
                raise ConfigError(
                    f"node label {key}: what this node is cannot be changed; leave it out of --node-labels"
                )
            labels[key] = value
        return labels

    @property
    def taints(self) -> list[Taint]:
        """`register_with_taints`, read.

        Raises:
            ConfigError: one is no taint.
        """
        taints = []
        for text in self.register_with_taints:
            match = _TAINT.fullmatch(text)
            if match is None:
                raise ConfigError(
                    f"taint: expected KEY=VALUE:EFFECT with NoSchedule, PreferNoSchedule or NoExecute, found {text!r}; "
                    "set it with --register-with-taints"
                )
            key, value, effect = match.groups()
            effect = cast(Literal["NoSchedule", "PreferNoSchedule", "NoExecute"], effect)
            taints.append(Taint(key, value or "", effect))
        return taints

    @property
    def reserved(self) -> dict[str, Quantity]:
        """`system_reserved`, read: how much of each resource is set aside.

        Raises:
            ConfigError: a part is not NAME=QUANTITY.
        """
        reserved = {}
        for text in filter(None, self.system_reserved.split(",")):
            name, _, amount = text.partition("=")
            try:
                reserved[name.strip()] = Quantity.parse(amount.strip())
            except ValueError:
                wanted = "expected NAME=QUANTITY, as in cpu=100m,memory=256Mi"
                raise ConfigError(f"system reserved: {wanted}, found {text!r}; set it with --system-reserved") from None
        return reserved

    def state_path(self) -> Path:
        """Where the state directory of this node is, or will be."""
        if self.state_dir is not None:
            return self.state_dir
        if os.geteuid() == 0:
            return Path("/run/wasmlet") / self.node_name
        base = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
        return Path(base) / "wasmlet" / self.node_name

    def directory(self) -> Path:
        """The state directory of this node, made if need be. Blocks.

        Raises:
            ConfigError: as `state_directory`.
        """
        return state_directory(self.state_path(), closed=CLOSED)

    def check_directory(self) -> bool:
        """Whether the state directory is there; if not, it can be made. Changes nothing. Blocks.

        Raises:
            ConfigError: as `directory` would.
        """
        return check_state_directory(self.state_path(), closed=CLOSED)
