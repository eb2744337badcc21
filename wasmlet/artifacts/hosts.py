"""Where a registry is reached: its own address, its mirrors (tried first), and which may be used without TLS."""

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
    """The options of a node that say how registries are reached."""

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
                raise ConfigError(
                    f"insecure registries: expected HOST[:PORT], found {name!r}; set it with --insecure-registries"
                )


@attrs.frozen
class Endpoint:
    """One server that is asked for the images of a registry: the registry itself, or a mirror.

    Attributes:
        name: the host, with its port if there is one; credentials are looked up by it.
        scheme: `http` or `https`; None if both are allowed: then the first contact shows which one works.
        host: the host to connect to.
        path: what comes before `/v2/` in URLs: "" or `/something`.
        mirror: whether this is a mirror.
    """

    name: str
    scheme: str | None
    host: str
    path: str = ""
    mirror: bool = False


def endpoints(config: RegistryConfig, reference: Reference) -> Iterator[Endpoint]:
    """The endpoints to ask for an image: the mirrors in their configured order, and the registry itself last."""
    for text in config.registry_mirrors:
        registry, endpoint = _mirror(text)
        if registry == reference.registry:
            yield endpoint
    yield own_endpoint(config, reference.registry)


def own_endpoint(config: RegistryConfig, registry: str) -> Endpoint:
    """The endpoint of the registry itself, not of a mirror."""
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
        raise ConfigError(
            f"registry mirrors: expected REGISTRY=https://HOST[:PORT][/PATH], found {text!r}; set it with "
            "--registry-mirrors"
        )
    return registry, Endpoint(host, parts.scheme, host, parts.path.rstrip("/"), mirror=True)
