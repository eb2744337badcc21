"""Gives the objects that `wasmlet demo FILE` applies: those of a manifest, or a pod that runs a module.

A manifest has one or more documents, each an object or a `List` of objects, of kinds that the embedded API server
knows. They are applied in their order. At least one must be a pod or make pods, since the demo shows what pods do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from wasmlet.artifacts import wasm
from wasmlet.artifacts.wasm_reader import NotWasm
from wasmlet.cli.needs import EGRESS, PORT, pod_name, serves
from wasmlet.controlplane.storage.kinds import KINDS, Kind
from wasmlet.errors import ConfigError
from wasmlet.kube.documents import read_all
from wasmlet.names import did_you_mean

_MAGIC = b"\0asm"
_NAME_LENGTH = 63
RUNS = ("Pod", "Deployment", "ReplicaSet", "StatefulSet", "Job")
"""The kinds that make pods; the demo shows what becomes of them."""
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def is_module(file: Path) -> bool:
    """Whether that is a WebAssembly module or component rather than a manifest."""
    if file.suffix.lower() == ".wasm":
        return True
    try:
        return _start_of(file) == _MAGIC
    except OSError:
        return False


def _start_of(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(len(_MAGIC))


def of_module(
    file: Path, arguments: Sequence[str], port: int | None = None, egress: str | None = None
) -> list[dict[str, Any]]:
    """A pod that runs a module of this machine once, with these arguments.

    Args:
        port: the TCP port of a module that is a server; the pod then gets a Service, too. None if it is not a server. A
            component that serves HTTP gets a port in any case.
        egress: the addresses that it may connect to, in the form of the annotation `wasmlet.dev/egress`; None for none.

    Raises:
        ConfigError: there is no such file, or a manifest cannot hold its name or an argument.
    """
    if not file.is_file():
        wrong = "expected a WebAssembly module, found a directory" if file.is_dir() else "there is no such file"
        raise ConfigError(f"{file}: {wrong}")
    try:
        start = _start_of(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    if start != _MAGIC:
        found = repr(start) if start else "an empty file"
        raise ConfigError(f"{file}: expected a WebAssembly module, which begins with {_MAGIC!r}, found {found}")
    for words in (file.name, *arguments):
        if any("\ud800" <= character <= "\udfff" for character in words):
            raise ConfigError(f"expected a name and arguments in UTF-8, as a manifest holds them, found {words!r}")
    name = pod_name(file.stem)
    container: dict[str, Any] = {"name": name, "image": f"file://./{quote(file.name)}"}
    if arguments:
        # The API expands $(NAME) in arguments; $$ is a dollar sign.
        container["args"] = [argument.replace("$", "$$") for argument in arguments]
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "tolerations": [{"key": "wasmlet.dev/provider", "operator": "Exists"}],
            "containers": [container],
        },
    }
    if egress is not None:
        pod["metadata"]["annotations"] = {EGRESS: egress}
    if port is None:
        port = _port_of(file)
    if port is None:
        return [pod]
    container["ports"] = [{"name": "http", "containerPort": port}]
    container["readinessProbe"] = {"tcpSocket": {"port": "http"}, "periodSeconds": 1}
    pod["metadata"]["labels"] = labels = {"app.kubernetes.io/name": name}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        # A Service's name begins with a letter.
        "metadata": {"name": (name if name[0].isalpha() else f"web-{name}")[:_NAME_LENGTH], "namespace": "default"},
        "spec": {"selector": labels, "ports": [{"name": "http", "port": port, "targetPort": "http"}]},
    }
    return [pod, service]


def _port_of(file: Path) -> int | None:
    """The port of a component that serves HTTP; None for any other file."""
    try:
        return PORT if serves(wasm.read_file(file)) else None
    except NotWasm:  # which is for the engine to say
        return None


def objects_of(manifest: Path) -> list[dict[str, Any]]:
    """The objects of a manifest, as `kubectl apply` would send them.

    Raises:
        ConfigError: it cannot be read, one of its documents is no object of a kind that there is, or none of them
            makes pods.
    """
    objects = checked_objects(manifest)
    if not any(body["kind"] in RUNS for body in objects):
        wanted = ", ".join(RUNS)
        raise ConfigError(f"{manifest}: expected at least one of {wanted}, found {len(objects)} other objects")
    return objects


def checked_objects(manifest: Path) -> list[dict[str, Any]]:
    """As `objects_of`, for a manifest that need not make pods."""
    try:
        documents = list(read_all(manifest.read_bytes()))
    except FileNotFoundError:
        raise ConfigError(f"{manifest}: there is no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{manifest}: expected a manifest or a module, found a directory") from None
    except OSError as error:
        raise ConfigError(f"{manifest}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{manifest}: {error}") from None
    return [
        _checked(body, f"{manifest}: document {number}")
        for number, document in enumerate(documents, 1)
        if document is not None
        for body in _flat(document)
    ]


def _flat(document: Any) -> Iterator[Any]:
    """The document, or the items of one that is a List."""
    if isinstance(document, dict) and document.get("kind") == "List" and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _flat(item)
    else:
        yield document


def _checked(body: Any, where: str) -> dict[str, Any]:
    if not isinstance(body, dict) or not isinstance(body.get("metadata"), dict):
        raise ConfigError(f"{where}: expected an object with apiVersion, kind and metadata, found {str(body)[:60]!r}")
    kind = kind_of(body)
    if kind is None:
        given = str(body.get("kind"))
        names = sorted({kind.kind for kind in KINDS if kind.stored})
        near = did_you_mean(given, names) if given not in names else ""
        raise ConfigError(
            f"{where}: the demo's API server has no {given} of {body.get('apiVersion')}{near} "
            f"It has: {', '.join(names)}"
        )
    metadata = body["metadata"]
    for field in ("name", "generateName", "namespace"):
        if not isinstance(given := metadata.get(field) or "", str):
            raise ConfigError(f'{where}: metadata.{field}: expected text, found {given}; write it as "{given}"')
    if not (metadata.get("name") or metadata.get("generateName")):
        raise ConfigError(f"{where}: expected metadata.name of the {kind.kind}, found none")
    namespace = metadata.get("namespace") or "default"
    if kind.namespaced and not _NAMESPACE.fullmatch(namespace):
        raise ConfigError(
            f"{where}: metadata.namespace: expected at most 63 of a-z, 0-9 and '-', with a letter or a digit at both "
            f"ends, found {namespace[:80]!r}"
        )
    if kind.namespaced and not metadata.get("namespace"):
        metadata["namespace"] = "default"
    # So that `kubectl apply` can be used on the same file afterwards.
    try:
        noted = {"kubectl.kubernetes.io/last-applied-configuration": orjson.dumps(body).decode()}
    except TypeError as error:
        raise ConfigError(f"{where}: expected what JSON can hold, found something else ({error})") from None
    annotations = metadata.get("annotations") or {}
    if not isinstance(annotations, dict):
        raise ConfigError(f"{where}: metadata.annotations: expected an object, found {str(annotations)[:60]!r}")
    metadata["annotations"] = annotations | noted
    return body


def kind_of(body: dict[str, Any]) -> Kind | None:
    """The kind of an object; None where the embedded API server has none of that name."""
    wanted = (body.get("apiVersion"), body.get("kind"))
    return next((kind for kind in KINDS if kind.stored and (kind.api_version, kind.kind) == wanted), None)


def path_of(body: dict[str, Any]) -> str:
    """Where an object of a manifest is posted."""
    kind = kind_of(body)
    if kind is None:
        raise ConfigError(f"there is no kind {body.get('kind')} of {body.get('apiVersion')}")
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    within = f"/namespaces/{quote(str(body['metadata']['namespace']), safe='')}" if kind.namespaced else ""
    return f"{root}{within}/{kind.plural}"
