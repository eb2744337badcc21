"""Where a registry is: its own address, the mirrors that are asked before it, and what may be said without TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from wasmlet.artifacts.references import DEFAULT_REGISTRY, Reference
from wasmlet.errors import ConfigError
from wasmlet.options import option

_HUB = "registry-1.docker.io"


@attrs.frozen
class RegistryConfig:
    """How registries are reached, as options of a node."""

    insecure_registries: tuple[str, ...] = option(
        (), help="Registry (HOST[:PORT]) that may have no valid certificate, or speak plain HTTP."
    )
    registry_mirrors: tuple[str, ...] = option(
        (), help="REGISTRY=URL: ask this mirror for images of that registry first, as docker.io=https://mirror.example."
    )
    registry_ca_file: Path | None = option(None, help="Authorities of registries, besides the system's.")

    def __attrs_post_init__(self) -> None:
        for mirror in self.registry_mirrors:
            _mirror(mirror)
        for name in self.insecure_registries:
            if "/" in name or not name:
                raise ConfigError(f"insecure registries: expected HOST[:PORT], found {name!r}")


@attrs.frozen
class Endpoint:
    """One place that answers for a registry.

    Attributes:
        name: the host, perhaps with a port; credentials are looked for by it.
        scheme: `http` or `https`; None where either is allowed, and the first contact shows which.
        host: where to connect to.
        path: what goes before `/v2/`, "" or `/something`.
        mirror: whether it stands in for another.
    """

    name: str
    scheme: str | None
    host: str
    path: str = ""
    mirror: bool = False


def endpoints(config: RegistryConfig, reference: Reference) -> Iterator[Endpoint]:
    """Where to look for an image: mirrors in the order they were given, and the registry itself last."""
    for text in config.registry_mirrors:
        registry, endpoint = _mirror(text)
        if registry == reference.registry:
            yield endpoint
    yield own_endpoint(config, reference.registry)


def own_endpoint(config: RegistryConfig, registry: str) -> Endpoint:
    """The registry itself."""
    host = _HUB if registry == DEFAULT_REGISTRY else registry
    return Endpoint(registry, None if registry in config.insecure_registries else "https", host)


def _mirror(text: str) -> tuple[str, Endpoint]:
    registry, equals, address = text.partition("=")
    try:
        parts = urlsplit(address)
        host, _ = parts.netloc, parts.port
    except ValueError:
        host = ""
    if not (equals and registry and host) or parts.scheme not in ("http", "https") or parts.query or "@" in host:
        raise ConfigError(f"registry mirrors: expected REGISTRY=https://HOST[:PORT][/PATH], found {text!r}")
    return registry, Endpoint(host, parts.scheme, host, parts.path.rstrip("/"), mirror=True)
