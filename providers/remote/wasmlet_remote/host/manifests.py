"""What an administrator applies for a host: its rights, and join tokens."""

from __future__ import annotations

import base64
import secrets
import string
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from wasmlet_agent.protocol.joining import NAME

from wasmlet import ConfigError
from wasmlet.model.times import rfc3339
from wasmlet_remote.host.tokens import TOKEN_TYPE, token_name

ACCOUNT = "wasmlet-host"
_RBAC = "rbac.authorization.k8s.io"
_ALPHABET = string.ascii_lowercase + string.digits


def rights(names: Sequence[str], namespace: str) -> list[dict[str, Any]]:
    """What a host may do that has these nodes, and no others.

    Raises:
        ConfigError: a name is none, or there is none: without names a rule would be about all users.
    """
    if not names:
        raise ConfigError("which agents? Name each node that the host may make requests as")
    for name in names:
        if not NAME.fullmatch(name):
            raise ConfigError(f"expected the name of a node, found {name!r}")
    users = [f"system:node:{name}" for name in dict.fromkeys(names)]
    account = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}

    def bound(kind: str, name: str, rules: list[dict[str, Any]], **where: str) -> list[dict[str, Any]]:
        metadata = {"name": name, **where}
        reference = {"apiGroup": _RBAC, "kind": kind, "name": name}
        return [
            {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": metadata, "rules": rules},
            {
                "apiVersion": f"{_RBAC}/v1",
                "kind": f"{kind}Binding",
                "metadata": metadata,
                "roleRef": reference,
                "subjects": [account],
            },
        ]

    impersonate = [
        {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": users},
        {"apiGroups": [""], "resources": ["groups"], "verbs": ["impersonate"], "resourceNames": ["system:nodes"]},
    ]
    keep = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch", "create", "patch"]}]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": namespace}},
        *bound("ClusterRole", f"{ACCOUNT}-impersonates", impersonate),
        *bound("Role", f"{ACCOUNT}-keys", keep, namespace=namespace),
    ]


def token(namespace: str, *, names: str, uses: int, expires: datetime, pool: str = "") -> tuple[dict[str, Any], str]:
    """The Secret of a new join token, and the token."""
    identifier = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    secret = secrets.token_urlsafe(24)
    data = {"secret": secret, "names": names, "uses": str(uses), "expires": rfc3339(expires), "pool": pool}
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": token_name(identifier), "namespace": namespace},
        "type": TOKEN_TYPE,
        "data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items() if text},
    }
    return manifest, f"{identifier}.{secret}"
