"""The files that clients read: certificates, keys and kubeconfigs, which only their owner may read."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import yaml

from wasmlet import files
from wasmlet.controlplane.certificates.pki import Pair
from wasmlet.controlplane.storage.status import Object

CLUSTER = "wasmlet"


def write_private(path: Path, data: bytes) -> Path:
    """Write a file atomically; only its owner may read it."""
    files.replace(path, data)
    return path


def file_name(user: str) -> str:
    """A user's name, made safe for use in a file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", user)


def kubeconfig(server: str, authority: bytes, user: str, credentials: Pair | str) -> bytes:
    """A kubeconfig with one context and all certificates embedded. `credentials` are a certificate pair or a token."""

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    who: Object
    if isinstance(credentials, Pair):
        who = {
            "client-certificate-data": text(credentials.certificate),
            "client-key-data": text(credentials.key),
        }
    else:
        who = {"token": credentials}
    context = f"{user}@{CLUSTER}"
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": CLUSTER, "cluster": {"server": server, "certificate-authority-data": text(authority)}}
            ],
            "users": [{"name": user, "user": who}],
            "contexts": [{"name": context, "context": {"cluster": CLUSTER, "user": user, "namespace": "default"}}],
            "current-context": context,
        },
        sort_keys=False,
    ).encode()
