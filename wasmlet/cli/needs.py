"""What a module or component needs of its pod, from what it imports and exports: ports, grants, and a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wasmlet.artifacts.wasm import Binary

PORT = 8080
_NAME = "app"
EGRESS = "wasmlet.dev/egress"
_HOSTS = "HOST:PORT, ..."
_KRUSTLET = "wasi_experimental_http"


def _names(binary: Binary) -> tuple[set[str], set[str]]:
    """The interfaces that it imports and exports, without their versions."""
    imports = {extern.name.partition("@")[0] for extern in binary.imports}
    return imports, {extern.name.partition("@")[0] for extern in binary.exports}


def serves(binary: Binary) -> bool:
    """Whether it is a component that serves HTTP, and no command."""
    _, exports = _names(binary)
    return binary.component and "wasi:http/incoming-handler" in exports and "wasi:cli/run" not in exports


def dials(binary: Binary) -> bool:
    """Whether it is a component that can dial, or a module that asks over HTTP."""
    imports, _ = _names(binary)
    if not binary.component:
        return any(extern.module == _KRUSTLET for extern in binary.imports)
    return bool(imports & {"wasi:http/outgoing-handler", "wasi:sockets/tcp", "wasi:sockets/udp"})


def needs_of(binary: Binary) -> Iterator[tuple[str, str]]:
    """What it needs, and how a pod gives it that; nothing for what needs nothing that all pods do not have."""
    if serves(binary):
        yield "a port", f"ports: [{{containerPort: {PORT}}}]; it is served at the container's first one, or there"
    if dials(binary):
        yield "a grant", f'annotation {EGRESS}: "{_HOSTS}" for whom it dials; without it, nobody'


def manifest_of(binary: Binary, image: str) -> dict[str, Any]:
    """A pod that runs it, with a field for each thing that it needs."""
    metadata: dict[str, Any] = {"name": _NAME}
    container: dict[str, Any] = {"name": _NAME, "image": image}
    if serves(binary):
        container["ports"] = [{"name": "http", "containerPort": PORT}]
        container["readinessProbe"] = {"tcpSocket": {"port": "http"}}
    if dials(binary):
        metadata["annotations"] = {EGRESS: ""}
    spec: dict[str, Any] = {"runtimeClassName": "wasmlet", "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
