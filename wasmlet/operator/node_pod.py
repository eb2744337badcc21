"""Builds the pod template of a pool's nodes. Pure. A change of this code replaces the pods of all pools."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import attrs

from wasmlet.errors import ConfigError
from wasmlet.kube.config import SERVICE_ACCOUNT
from wasmlet.node.config import NodeConfig
from wasmlet.operator.pool import LABEL, Pool, Unusable
from wasmlet.runtime.config import RuntimeConfig

DRAIN_SECONDS = 25
GRACE_SECONDS = 40
"""The pod's grace period in seconds; longer than the node needs to drain (`DRAIN_SECONDS`) and to stop."""
STATE = "/var/lib/wasmlet"
UNPREPARED = "wasmlet.dev/unprepared"
"""The taint of a new Node, until it has the labels, annotations and taints of the pool's template."""
BOOTSTRAP = "wasmlet.dev/bootstrap-kubeconfig"
"""Annotation of a pod: a kubeconfig with which its node requests a certificate. It refers to the file with the token.
"""
_BOOTSTRAP = "/etc/wasmlet/bootstrap"
_USER = 65532
_OWN = (
    "bootstrap_kubeconfig", "drain_on_exit", "drain_seconds", "engine", "healthz_port", "impersonate_node",
    "kubeconfig", "max_pods", "node_ip", "node_labels", "node_name", "port", "register_with_taints", "state_dir",
    "system_reserved",
)  # fmt: skip
"""Options of a node that the operator sets itself, so `spec.config` may not have them."""
_OWN_OF_HOST = (
    "kubeconfig", "listen", "max_pods", "namespace", "node_ip", "pool", "register_with_taints", "state_dir",
    "tls_ca_file", "tls_cert_file", "tls_key_file",
)  # fmt: skip
"""The same for a host of agents."""
_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_WORDS = dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True)
_WORDS |= dict.fromkeys(("0", "false", "f", "no", "n", "off"), False)
"""What a variable of an option may say that is true or false."""
_PLACEMENT = ("affinity", "imagePullSecrets", "priorityClassName", "tolerations", "topologySpreadConstraints")


def check_config(pool: Pool) -> None:
    """Check that each setting in `spec.config` is a known option and has a value that a node takes.

    Raises:
        Unusable: one has not, or is one that the operator sets itself; the message names it. Or `spec.reserved` says
            what is no amount.
    """
    for key in pool.config:
        name = key.replace("-", "_")
        if name in (_OWN_OF_HOST if pool.remote is not None else _OWN):
            raise Unusable("InvalidConfig", f"spec.config: {key} is the operator's to set; leave it out")
        if pool.provider not in ("custom", "remote") and name not in _known():
            raise Unusable(
                "InvalidConfig", f"spec.config: a node has no option {key!r}; `wasmlet run --help` lists them"
            )
    if len({key.replace("-", "_") for key in pool.config}) != len(pool.config):
        raise Unusable("InvalidConfig", "spec.config: an option is there twice, with '-' and with '_'")
    if pool.remote is None:
        _check("spec.reserved", NodeConfig, {"node_name": pool.node(0), "system_reserved": _reserved(pool)})
    if pool.provider in ("custom", "remote"):
        return
    for kind, more in ((NodeConfig, {"node_name": pool.node(0)}), (RuntimeConfig, {})):
        hints, values = _hints(kind), {key.replace("-", "_"): text for key, text in pool.config.items()}
        read = {name: _read(name, hints[name], text) for name, text in values.items() if text and name in hints}
        _check("spec.config", kind, {**read, **more})


@functools.cache
def _hints(kind: type[Any]) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _check(what: str, kind: type[Any], values: Mapping[str, Any]) -> None:
    """Check that a node would take these settings: one that ends at its start would take the place of one that runs."""
    try:
        kind(**values)
    except ConfigError as error:
        raise Unusable("InvalidConfig", f"{what}: {error}") from None


def _read(name: str, hint: Any, text: str) -> Any:
    """The value of an option, read from its variable as a node reads it."""
    if get_origin(hint) is tuple:
        return tuple(text.split())
    kinds = {hint, *get_args(hint)}
    for kind, read, expected in (
        (bool, _WORDS.__getitem__, "true or false"),
        (int, int, "a whole number"),
        (float, float, "a number"),
        (Path, Path, "a path"),
    ):
        if kind in kinds:
            try:
                return read(text.strip().lower()) if kind is bool else read(text)
            except (KeyError, ValueError):
                key = name.replace("_", "-")
                raise Unusable("InvalidConfig", f"spec.config: {key}: expected {expected}, found {text!r}") from None
    return text


def template(pool: Pool, image: str, account: str, server: str) -> dict[str, Any]:
    """The pod template of the pool's StatefulSet.

    Args:
        image: the image for a pool that names none.
        account: the name of the pod's service account.
        server: URL of the API server, for nodes that ask for certificates.
    """
    node = container(pool, image, options(pool))
    metadata: dict[str, Any] = {"labels": labels(pool.name)}
    spec = spec_of(pool, node, account)
    if pool.certificates:
        metadata["annotations"] = {BOOTSTRAP: _bootstrap(server)}
        node["volumeMounts"].append({"name": "bootstrap", "mountPath": _BOOTSTRAP, "readOnly": True})
        field = {"fieldPath": f"metadata.annotations['{BOOTSTRAP}']"}
        spec["volumes"].append(
            {"name": "bootstrap", "downwardAPI": {"items": [{"path": "kubeconfig", "fieldRef": field}]}}
        )
    return {"metadata": metadata, "spec": spec}


def container(pool: Pool, image: str, arguments: list[str]) -> dict[str, Any]:
    """The container of a node's pod."""
    given = pool.node_pod
    found: dict[str, Any] = {
        "name": "node",
        "image": given.get("image") or image,
        "args": arguments,
        "env": [
            _field("POD_NAME", "metadata.name"),
            _field("POD_IP", "status.podIP"),
            *({"name": f"WASMLET_{_upper(key)}", "value": value} for key, value in sorted(pool.config.items())),
        ],
        "ports": [{"name": "kubelet", "containerPort": 10250, "protocol": "TCP"}],
        "readinessProbe": {"tcpSocket": {"port": "kubelet"}},
        "resources": given.get("resources") or _RESOURCES,
        "volumeMounts": [
            {"name": "state", "mountPath": STATE},
            {"name": "memory", "mountPath": "/dev/shm"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    return found | {key: given[key] for key in ("command", "imagePullPolicy") if key in given}


def spec_of(pool: Pool, container: dict[str, Any], account: str) -> dict[str, Any]:
    """The pod spec around this container: volumes, placement, service account and security settings."""
    given = pool.node_pod
    spec: dict[str, Any] = {
        "serviceAccountName": account,
        "nodeSelector": given.get("nodeSelector") or {"kubernetes.io/os": "linux"},
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [container],
        "volumes": [
            {"name": "state", "emptyDir": {}},
            # Secrets of pods and what is staged for guests lie here; 64 MiB, the default, is too little.
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    spec |= {key: given[key] for key in _PLACEMENT if key in given}
    _secure(spec, container, privileged=given.get("privileged", False))
    return spec


def options(pool: Pool) -> list[str]:
    """The command-line options of each node."""
    settings = [f"--{name}={value}" for name, value in _settings(pool)]
    provider = [] if pool.provider == "custom" else [f"--provider={pool.provider}"]
    # Without certificates of its own, only a person could approve a node's serving request. A pool that has such an
    # approver sets serving-csr.
    serving = [] if {"serving-csr", "serving_csr"} & set(pool.config) else ["--no-serving-csr"]
    identity = ["--impersonate-node", *serving]
    if pool.certificates:  # the operator approves those of the nodes' APIs, too
        identity = [f"--bootstrap-kubeconfig={_BOOTSTRAP}/kubeconfig"]
    return [*provider, "--drain-on-exit", *identity, *settings]


def _bootstrap(server: str) -> str:
    """A kubeconfig that uses the token of the pod, with which a node requests its certificate (JSON)."""
    user = {"tokenFile": f"{SERVICE_ACCOUNT}/token"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "c", "cluster": {"server": server, "certificate-authority": f"{SERVICE_ACCOUNT}/ca.crt"}}
        ],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    return json.dumps(config, separators=(",", ":"))


def labels(pool: str) -> dict[str, str]:
    """The labels of whatever belongs to the pool."""
    return {
        "app.kubernetes.io/name": "wasmlet",
        "app.kubernetes.io/component": "node",
        "app.kubernetes.io/managed-by": "wasmlet-operator",
        LABEL: pool,
    }


def _settings(pool: Pool) -> Iterable[tuple[str, str]]:
    yield "node-name", "$(POD_NAME)"
    yield "node-ip", "$(POD_IP)"
    yield "state-dir", f"{STATE}/state"
    yield "drain-seconds", str(DRAIN_SECONDS)
    yield "max-pods", str(pool.max_pods)
    yield "system-reserved", _reserved(pool)
    yield "node-labels", f"{LABEL}={pool.name}"
    yield "register-with-taints", f"{UNPREPARED}:NoSchedule"
    for engine in sorted(pool.engines):
        yield "engine", engine
    if pool.provider == "wascc" and "network" not in pool.config:
        yield "network", "address"  # actors do nothing but answer; a node chooses none in a pod without rights


def _reserved(pool: Pool) -> str:
    return ",".join(f"{name}={amount}" for name, amount in sorted(pool.reserved.items()))


def _secure(spec: dict[str, Any], container: dict[str, Any], *, privileged: bool) -> None:
    """Set the security context: what Pod Security "restricted" demands, or, where `privileged`, all rights."""
    if privileged:
        container["securityContext"] = {"privileged": True, "runAsUser": 0}
        return
    container["securityContext"] = _RESTRICTED
    spec["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _upper(key: str) -> str:
    return key.upper().replace("-", "_")


def _known() -> Sequence[str]:
    return [field.name for kind in (NodeConfig, RuntimeConfig) for field in attrs.fields(kind) if field.init]
