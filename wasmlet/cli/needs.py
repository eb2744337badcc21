"""What a module or component needs of its pod, from what it imports and exports: ports, grants, and a manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from wasmlet.artifacts.wasm import Binary

if TYPE_CHECKING:
    from wasmlet.cli.facts import Facts

PORT = 8080
_NAME_LENGTH = 63
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


def needs_of(binary: Binary, facts: Facts) -> Iterator[tuple[str, str]]:
    """Pairs: a thing that the module needs beyond what every pod has, and how a pod gives it that."""
    if serves(binary) or facts.needs.serves:
        yield "a port", f"ports: [{{containerPort: {PORT}}}]; it is served at the container's first one, or there"
    if dials(binary):
        yield "a grant", f'annotation {EGRESS}: "{_HOSTS}" for whom it dials; without it, nobody'
    for name, value in facts.needs.annotations.items():
        yield "an annotation", f'{name}: "{value}"'
    for name in facts.needs.volumes:
        yield "a volume", f"mounted at any path, under the name by which it is asked for: {name}"


def stays(binary: Binary, facts: Facts) -> bool:
    """Whether it runs until its pod is deleted, as a server or an actor does; a command ends by itself."""
    accepts = any(extern.name == "sock_accept" for extern in binary.imports)
    return accepts or serves(binary) or facts.needs.serves or bool(facts.handler)


def pod_name(text: str) -> str:
    """The name of a pod and a container for the module that a file or a repository has, made of the name of that."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:_NAME_LENGTH].strip("-") or "module"


def manifest_of(binary: Binary, image: str, name: str, facts: Facts) -> dict[str, Any]:
    """A pod that runs it, with a field for each thing that it needs."""
    metadata: dict[str, Any] = {"name": name}
    container: dict[str, Any] = {"name": name, "image": image}
    spec: dict[str, Any] = {"runtimeClassName": facts.handler or "wasmlet", "containers": [container]}
    if not stays(binary, facts):
        spec["restartPolicy"] = "Never"
    if serves(binary) or facts.needs.serves:
        container["ports"] = [{"name": "http", "containerPort": PORT}]
        container["readinessProbe"] = {"httpGet" if facts.needs.serves else "tcpSocket": {"port": "http"}}
    annotations = dict(facts.needs.annotations)
    if dials(binary):
        annotations[EGRESS] = ""
    if annotations:
        metadata["annotations"] = annotations
    if facts.needs.volumes:
        container["volumeMounts"] = [{"name": name, "mountPath": f"/{name}"} for name in facts.needs.volumes]
        spec["volumes"] = [{"name": name, "emptyDir": {}} for name in facts.needs.volumes]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
