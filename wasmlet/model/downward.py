"""The downward API: the fields and resources of a pod that its own containers can read, as text.

`field_value` answers a `fieldRef`, `resource_value` a `resourceFieldRef`. Which fields there are depends on where one
asks: the API documents one list for variables and another for volumes. `wasmlet.model.environment` and
`wasmlet.model.volumes` put the answers where they belong.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

from wasmlet.errors import Refused
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Container, Pod, Raw
from wasmlet.model.quantity import Quantity

Place = Literal["env", "volume"]

_ANYWHERE = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels['KEY']",
    "metadata.annotations['KEY']",
)
_ENV_ONLY = (
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_VOLUME_ONLY = ("metadata.labels", "metadata.annotations")
_POD_LEVEL = ("cpu", "memory")
_DEFAULTED = (*_POD_LEVEL, "ephemeral-storage")


@attrs.frozen
class Asked:
    """Where a manifest asks for a field of its pod.

    Attributes:
        field: path of the selector in the manifest, for messages.
        container: the container that is concerned; None for all of the pod.
    """

    place: Place
    field: str
    container: str | None = None


def field_value(pod: Pod, selector: Raw, inputs: Inputs, pod_ips: Sequence[str], asked: Asked) -> str:
    """The value that an `ObjectFieldSelector` names; "" for a label or annotation that the pod does not have.

    `status.podIP` and `status.podIPs` of a pod without an address of its own are the node's.

    Raises:
        Refused: the API does not document this field for this place.
    """
    path = str(selector.get("fieldPath", ""))
    simple = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.uid,
    }
    maps = {"metadata.labels": pod.labels, "metadata.annotations": pod.annotations}
    if asked.place == "env":
        addresses = list(pod_ips or inputs.node_ips)
        simple |= {
            "spec.nodeName": str(pod.spec.get("nodeName") or inputs.node_name),
            "spec.serviceAccountName": str(pod.spec.get("serviceAccountName") or ""),
            "status.hostIP": next(iter(inputs.node_ips), ""),
            "status.hostIPs": ",".join(inputs.node_ips),
            "status.podIP": next(iter(addresses), ""),
            "status.podIPs": ",".join(addresses),
        }
    else:
        simple |= {name: format_map(values) for name, values in maps.items() if name == path}
    version = selector.get("apiVersion") or "v1"
    if version == "v1":
        if path in simple:
            return simple[path]
        name, bracket, key = path.removesuffix("']").partition("['")
        if name in maps and bracket and path.endswith("']"):
            return maps[name].get(key, "")
    known = (*_ANYWHERE, *(_ENV_ONLY if asked.place == "env" else _VOLUME_ONLY))
    found = repr(path) if version == "v1" else f"{path!r} of version {version!r}"
    raise Refused(asked.field, f"expected one of {', '.join(known)} (v1), found {found}", container=asked.container)


def resource_value(pod: Pod, selector: Raw, inputs: Inputs, *, field: str, container: Container | None) -> str:
    """The amount that a `ResourceFieldSelector` names, divided by its divisor and rounded up to a whole number.

    A limit of cpu, memory or ephemeral-storage that is not set is the pod's own (KEP-2837), else what the node can
    allocate; a request that is not set is 0.

    Args:
        container: whose resources are meant where the selector does not say.

    Raises:
        Refused: no such resource or container.
    """
    concerned = container.name if container else None
    name = selector.get("containerName") or concerned
    owner = next((c for c in (*pod.containers, *pod.init_containers) if c.name == name), container)
    if owner is None or owner.name != name:
        raise Refused(f"{field}.containerName", f"container {name or ''} not found", container=concerned)
    kind, _, resource = str(selector.get("resource", "")).partition(".")
    if kind not in ("limits", "requests") or not (resource in _DEFAULTED or resource.startswith("hugepages-")):
        raise Refused(
            f"{field}.resource",
            "expected limits. or requests. and one of cpu, memory, ephemeral-storage, hugepages-SIZE; "
            f"found {selector.get('resource')!r}",
            container=concerned,
        )
    try:
        amount = Quantity.parse((owner.resources.get(kind) or {}).get(resource, 0))
        if kind == "limits" and not amount and resource in _DEFAULTED:
            amount = _default_limit(pod, resource, inputs)
        divisor = Quantity.parse(selector.get("divisor") or 1) or Quantity.parse(1)
    except ValueError as error:
        raise Refused(field, str(error), container=concerned) from None
    # Both are whole first, cpu in milli: 0.5m of cpu is 1m, and by a divisor of 1m that is 1.
    scale = Quantity.parse("1m" if resource == "cpu" else 1)
    return str(-(-amount.units(scale) // divisor.units(scale)))


def _default_limit(pod: Pod, resource: str, inputs: Inputs) -> Quantity:
    if resource in _POD_LEVEL:
        pod_limits = (pod.spec.get("resources") or {}).get("limits") or {}
        if amount := Quantity.parse(pod_limits.get(resource, 0)):
            return amount
    return Quantity.parse(inputs.node_allocatable.get(resource, 0))


def format_map(values: Mapping[str, str]) -> str:
    """Labels or annotations as a volume has them: `key="value"` lines, sorted, the values quoted as Go does."""
    return _formatted(tuple(sorted(values.items())))


@functools.lru_cache(maxsize=4)
def _formatted(values: tuple[tuple[str, str], ...]) -> str:
    # Kept, because a volume may ask for the same map, which may have 256 KiB, in each of its files.
    return "\n".join(f"{key}={_quote(value)}" for key, value in values)


_ESCAPES = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}
_ESCAPES |= {"\\": r"\\", '"': r"\""}
_TO_LOOK_AT = re.compile(r"[^ !#-\[\]-~]")
"""All but the characters of ASCII that are quoted as they are."""


def _quote(text: str) -> str:
    return f'"{_TO_LOOK_AT.sub(_quoted, text)}"'


def _quoted(found: re.Match[str]) -> str:
    char = found[0]
    return _ESCAPES.get(char) or (char if _printable(char) else _escape(char))


def _printable(char: str) -> bool:
    return char == " " or unicodedata.category(char)[0] in "LMNPS"


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x80:
        # Go's quoting has \x for ASCII only; above that it counts runes.
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
