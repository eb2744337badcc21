"""The bodies of requests that give a pod to an agent: only what the agent needs, compressed if it is large."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from typing import Any

import attrs
from wasmlet_agent.protocol.codec import encode
from wasmlet_agent.protocol.messages import PodRequest

from wasmlet import Inputs, Pod
from wasmlet.model.pod import Raw
from wasmlet.model.references import references

PACKED_ABOVE = 16 * 1024
"""Bytes of a body from which on it is packed: what is shorter costs more time than it saves."""
_LEVEL = 1


@attrs.frozen
class Body:
    """The body of a PUT or PATCH.

    Attributes:
        content: as it is sent.
        headers: that go with it.
        digest: of what was packed.
    """

    content: bytes = attrs.field(repr=False)
    headers: dict[str, str]
    digest: str

    @property
    def packed(self) -> bool:
        return "Content-Encoding" in self.headers


def body_of(pod: Pod, inputs: Inputs) -> Body:
    """The body that gives this pod to an agent.

    The pod's status is left out, since the agent reports it, and so is `managedFields`. If the node loop brings the
    images (`--push-images`), the pull secrets are left out, too.
    """
    raw = {key: value for key, value in pod.raw.items() if key != "status"}
    raw["metadata"] = _lean(pod.metadata)
    plain = encode(PodRequest(raw, _lean_inputs(pod, inputs)))
    headers = {"Content-Type": "application/json"}
    digest = hashlib.sha256(plain).hexdigest()
    if len(plain) <= PACKED_ABOVE:
        return Body(plain, headers, digest)
    return Body(gzip.compress(plain, _LEVEL, mtime=0), headers | {"Content-Encoding": "gzip"}, digest)


def _lean_inputs(pod: Pod, inputs: Inputs) -> Inputs:
    return attrs.evolve(
        inputs,
        config_maps={name: _object(value) for name, value in inputs.config_maps.items()},
        secrets={name: _object(value) for name, value in _secrets(pod, inputs).items()},
        services=[_service(value) for value in inputs.services if _needed(pod, value)],
    )


def _secrets(pod: Pod, inputs: Inputs) -> Mapping[str, Raw]:
    """The secrets that the agent needs."""
    if not inputs.images:
        return inputs.secrets
    spec = {key: value for key, value in pod.spec.items() if key != "imagePullSecrets"}
    needed = references(Pod({**pod.raw, "spec": spec})).secrets
    return {name: value for name, value in inputs.secrets.items() if name in needed}


def _needed(pod: Pod, service: Raw) -> bool:
    """Whether the pod gets variables for the service. Without service links, only the API server's service counts."""
    if pod.spec.get("enableServiceLinks") is not False:
        return True
    metadata = service["metadata"]
    return (metadata.get("namespace"), metadata.get("name")) == ("default", "kubernetes")


def _service(service: Raw) -> Raw:
    """Name, address and ports: what a pod's variables are made of. A namespace may have hundreds of services."""
    metadata, spec = service["metadata"], service.get("spec") or {}
    return {
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "spec": {key: spec[key] for key in ("clusterIP", "ports") if key in spec},
    }


def _object(value: Raw) -> Raw:
    return {**value, "metadata": _lean(value.get("metadata") or {})}


def _lean(metadata: Raw) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if key != "managedFields"}
