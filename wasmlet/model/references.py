"""Which config maps, secrets and tokens a pod refers to, wherever in its manifest it does.

The node loop watches these by name, one by one, as the Node authorizer wants it, and hands what it finds to the
provider as `wasmlet.model.inputs.Inputs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import attrs

from wasmlet.model.inputs import TokenKey
from wasmlet.model.pod import Pod, Raw

Kind = Literal["ConfigMap", "Secret"]


@attrs.frozen
class References:
    """The names that a pod refers to, in its own namespace.

    Attributes:
        config_maps, secrets: every name.
        required_config_maps, required_secrets: those of them that at least one reference needs to be there. Pull
            secrets are never needed: without one the pull is tried all the same.
        tokens: the service-account tokens that projected volumes ask for.
    """

    config_maps: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()
    required_config_maps: frozenset[str] = frozenset()
    required_secrets: frozenset[str] = frozenset()
    tokens: frozenset[TokenKey] = frozenset()


def references(pod: Pod) -> References:
    """Collect what the pod refers to: in variables of all its containers, in volumes, and to pull images."""
    found = [(kind, name, optional) for kind, name, optional in _references(pod) if name]

    def names(kind: Kind, *, required: bool) -> frozenset[str]:
        return frozenset(name for k, name, optional in found if k == kind and not (required and optional))

    return References(
        config_maps=names("ConfigMap", required=False),
        secrets=names("Secret", required=False),
        required_config_maps=names("ConfigMap", required=True),
        required_secrets=names("Secret", required=True),
        tokens=frozenset(
            TokenKey.of(source["serviceAccountToken"])
            for source in _projected(pod)
            if source.get("serviceAccountToken") is not None
        ),
    )


def _references(pod: Pod) -> Iterator[tuple[Kind, str, bool]]:
    for container in (*pod.containers, *pod.init_containers, *pod.ephemeral_containers):
        for source in container.raw.get("envFrom") or ():
            yield from _both(source, "configMapRef", "secretRef")
        for variable in container.env:
            yield from _both(variable.get("valueFrom") or {}, "configMapKeyRef", "secretKeyRef")
    for volume in pod.spec.get("volumes") or ():
        yield from _both(volume, "configMap", "secret")
    for source in _projected(pod):
        yield from _both(source, "configMap", "secret")
    for reference in pod.spec.get("imagePullSecrets") or ():
        yield "Secret", str(reference.get("name") or ""), True


def _both(source: Raw, config_map: str, secret: str) -> Iterator[tuple[Kind, str, bool]]:
    if (reference := source.get(config_map)) is not None:
        yield "ConfigMap", str(reference.get("name") or ""), bool(reference.get("optional"))
    if (reference := source.get(secret)) is not None:
        # A secret volume says secretName where everything else says name.
        name = str(reference.get("name") or reference.get("secretName") or "")
        yield "Secret", name, bool(reference.get("optional"))


def _projected(pod: Pod) -> Iterator[Raw]:
    for volume in pod.spec.get("volumes") or ():
        yield from (volume.get("projected") or {}).get("sources") or ()
