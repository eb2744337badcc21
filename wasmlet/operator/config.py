"""The operator's settings, each of them a flag, a `WASMLET_*` variable and a TOML key (see `wasmlet.options`)."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import attrs

from wasmlet.errors import ConfigError
from wasmlet.kube.config import SERVICE_ACCOUNT
from wasmlet.options import option

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def _namespace() -> str:
    """The namespace of the pod in which the operator runs; "wasmlet" outside of a cluster."""
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text("utf-8").strip() or "wasmlet"
    except OSError:
        return "wasmlet"


def _image() -> str:
    """The image that `make image` makes of this version."""
    return f"wasmlet:{metadata.version('wasmlet')}"


@attrs.frozen
class OperatorConfig:
    """Where the operator works, and what it makes nodes of."""

    kubeconfig: Path | None = option(None, help="Credentials; KUBECONFIG or the pod's service account without it.")
    namespace: str = option(factory=_namespace, help="Namespace of the nodes' pods; the operator's own without it.")
    node_image: str = option(
        factory=_image, help="Image of the nodes of pools that name none; wasmlet:VERSION without it."
    )
    health_address: str = option("127.0.0.1", help="Address of /healthz and /metrics.")
    health_port: int = option(0, most=65535, help="Port of /healthz and /metrics; 0 serves none.")

    def __attrs_post_init__(self) -> None:
        if not _LABEL.fullmatch(self.namespace):
            raise ConfigError(
                f"namespace: expected at most 63 lower-case letters, digits and '-', found {self.namespace!r}; "
                "set it with --namespace"
            )
