"""Small manifests for the model's tests."""

from __future__ import annotations

import base64
from typing import Any

from wasmlet.model.pod import Container, Pod


def pod(*containers: dict[str, Any], metadata: dict[str, Any] | None = None, **spec: Any) -> Pod:
    """A pod `web` of namespace `shop` on node `node-1`, with these containers."""
    return Pod(
        {
            "metadata": {"name": "web", "namespace": "shop", "uid": "uid-1", **(metadata or {})},
            "spec": {"nodeName": "node-1", "containers": list(containers) or [{"name": "main"}], **spec},
        }
    )


def with_env(*env: dict[str, Any], env_from: list[dict[str, Any]] | None = None, **rest: Any) -> tuple[Pod, Container]:
    """A pod whose only container has these variables, and that container."""
    made = pod({"name": "main", "env": list(env), "envFrom": env_from or [], **rest})
    return made, made.containers[0]


def secret(**values: bytes) -> dict[str, Any]:
    return {"data": {key: base64.b64encode(value).decode() for key, value in values.items()}}


def service(
    name: str, ip: str = "10.0.0.1", *ports: dict[str, Any], namespace: str = "shop", **spec: Any
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip, "ports": list(ports) or [{"port": 80, "protocol": "TCP"}], **spec},
    }
