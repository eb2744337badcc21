"""Writes new tokens of an issuer (OpenID Connect) back into the kubeconfig, as kubectl does.

The next process needs them there: some issuers accept each refresh token only once. As with kubectl, comments in the
file are lost. A file that may not be written, such as one in a Secret's volume, is left as it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wasmlet import files
from wasmlet.kube.documents import read, write
from wasmlet.kube.kubeconfig import AuthProvider


def keep(provider: AuthProvider, given: Mapping[str, str]) -> str:
    """Write these fields into the configuration of a user's auth-provider. Blocks.

    Args:
        provider: the auth-provider as the file had it before; if the file has another one now, nothing is written.

    Returns:
        Why the file was left as it is; empty when it was written.
    """
    path = Path(os.path.realpath(provider.file))  # a link stays one
    try:
        before = path.stat()
        if not (before.st_mode & 0o222 and os.access(path, os.W_OK)):  # root may write what nobody is to write
            return "it may not be written"
        document = read(path.read_bytes())
        found = _user_config(document, provider.user)
        if found is None or {name: found.get(name) or "" for name in provider.config} != provider.config:
            return "somebody else has changed it meanwhile"
        found.update(given)
        files.replace(path, write(document), like=before)
    except OSError as error:
        return error.strerror or type(error).__name__
    except ValueError as error:
        return str(error)
    return ""


def _user_config(document: Any, user: str) -> dict[str, Any] | None:
    """The configuration of a user's auth-provider in a kubeconfig."""
    try:
        (entry,) = (entry for entry in document["users"] if entry["name"] == user)
        config = entry["user"]["auth-provider"]["config"]
    except (KeyError, TypeError, ValueError):
        return None
    return config if isinstance(config, dict) else None
