"""The objects that a pod refers to, as they stand now.

A provider is handed `Inputs` with each pod: raw config maps, secrets, services, claims and tokens, by name, each
with the revision that the API server gave it. What becomes of them (variables, files) is worked out by pure functions
when a container starts, so a restart sees new values. Everything here is from the pod's own namespace, except
persistent volumes, which have no namespace, and the service `default/kubernetes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from wasmlet.model.pod import Raw

DEFAULT_TOKEN_SECONDS = 3600
"""`expirationSeconds` of a projected service-account token that does not say."""


@attrs.frozen
class TokenKey:
    """Which service-account token: `audience` "" means the API server's own, `expiration_seconds` is what is asked for.

    One token serves every projected source of the pod that asks for the same.
    """

    audience: str = ""
    expiration_seconds: int = DEFAULT_TOKEN_SECONDS

    @classmethod
    def of(cls, source: Raw) -> TokenKey:
        """The key of a `serviceAccountToken` source of a projected volume."""
        return cls(source.get("audience") or "", int(source.get("expirationSeconds") or DEFAULT_TOKEN_SECONDS))


@attrs.frozen
class HandedImage:
    """An image that a node loop has brought to a provider which reaches no registry (`Provider.take_image`).

    Attributes:
        digest: the digest of its manifest, `sha256:...`: what the image's name meant when the pod was handed over.
        wasm: whether its index or an annotation says that it is WebAssembly. Its configuration may not say so.
    """

    digest: str
    wasm: bool = False


@attrs.frozen
class Inputs:
    """A snapshot of what a pod refers to. An object that is not here does not exist in the API.

    Attributes:
        config_maps: raw objects by name.
        secrets: raw objects by name.
        tokens: tokens of the pod's service account, bound to the pod.
        services: the services of the pod's namespace, and `default/kubernetes`.
        claims: raw objects by name.
        persistent_volumes: raw objects by the name of the claim that is bound to them. A claim that is not bound has
            none.
        node_name: the name of the node that runs the pod.
        node_ips: the addresses of that node.
        runtime_handler: the handler of the pod's RuntimeClass; "" without a class, None if the class does not exist.
        node_allocatable: resource name to quantity: the values of `resourceFieldRef` for a container without a limit.
        images: images that the node loop has brought, by their names in the manifest. The provider gets all others.
    """

    config_maps: Mapping[str, Raw] = attrs.field(factory=dict)
    secrets: Mapping[str, Raw] = attrs.field(factory=dict, repr=False)
    tokens: Mapping[TokenKey, str] = attrs.field(factory=dict, repr=False)
    services: Sequence[Raw] = ()
    claims: Mapping[str, Raw] = attrs.field(factory=dict)
    persistent_volumes: Mapping[str, Raw] = attrs.field(factory=dict)
    node_name: str = ""
    node_ips: Sequence[str] = ()
    runtime_handler: str | None = ""
    node_allocatable: Mapping[str, str] = attrs.field(factory=dict)
    images: Mapping[str, HandedImage] = attrs.field(factory=dict)
