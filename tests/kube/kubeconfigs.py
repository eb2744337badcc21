"""Parts of kubeconfigs: what differs from the usual file, and what that comes to."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.kube.judge import (
    At,
    credential,
)

Row = Callable[[At], Mapping[str, Any] | str | bytes | None]
"""Makes a kubeconfig, or sets up the environment and returns None."""


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def wrapped(text: str) -> str:
    return "\n".join(text[start : start + 64] for start in range(0, len(text), 64)) + "\n"


def pair(at: At, **more: str) -> dict[str, str]:
    pki = at.server.pki
    return {"client-certificate-data": b64(pki.certificate), "client-key-data": b64(pki.key), **more}


def pair_files(at: At) -> dict[str, str]:
    at.file("c.pem", at.server.pki.certificate)
    at.file("k.pem", at.server.pki.key)
    return {"client-certificate": "c.pem", "client-key": "k.pem"}


def token_file(at: At, content: str | bytes, **more: str) -> dict[str, Any]:
    at.file("secrets/token", content)
    return at.config({"tokenFile": "secrets/token", **more})


def listed(at: At, *parts: str) -> None:
    """KUBECONFIG with these parts, where they are not empty files of the row's directory."""
    at.env["KUBECONFIG"] = ":".join(str(at.directory / part) if part else "" for part in parts)


def split(at: At) -> None:
    full = at.config()
    at.file("one", {name: full[name] for name in ("contexts", "current-context")})
    at.file("two/rest", {name: full[name] for name in ("clusters", "users")})
    listed(at, "one", "two/rest")


def first_wins(at: At) -> None:
    at.file("one", at.config({"token": "good"}))
    at.file("two", at.config({"token": "bad"}, {"server": "https://127.0.0.1:1"}, current_context="nowhere"))
    listed(at, "one", "two", "one")


def relative_to_its_own(at: At) -> None:
    at.file("a/token", "bad")
    at.file("b/token", "good")
    full = at.config({"tokenFile": "token"})
    at.file("a/one", {name: full[name] for name in ("clusters", "contexts", "current-context")})
    at.file("b/two", {"users": full["users"]})
    listed(at, "a/one", "b/two")


def given(at: At, *parts: str, **files: Any) -> None:
    for name, content in files.items():
        at.file(name, content)
    listed(at, *parts)


def told(at: At) -> str:
    """What a plugin is told of the cluster."""
    cluster = {
        "server": at.server.url,
        "tls-server-name": "api.test",
        "certificate-authority-data": at.authority,
        "config": {"audience": "x", "number": 1},
    }
    spec = {"cluster": cluster, "interactive": False}
    info = {"kind": "ExecCredential", "apiVersion": credential()["apiVersion"], "spec": spec}
    return json.dumps(info, separators=(",", ":")) + "\n"


def proxied(at: At, **env: str) -> dict[str, Any]:
    at.env.update(env)
    return at.config()
