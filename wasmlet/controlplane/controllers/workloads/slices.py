"""Works out the EndpointSlices that a Service should have, from its pods and from the slices that it has.

The rules are those of k8s.io/endpointslice: at most 100 endpoints in a slice, slices of one Service differ in their
ports where a named port has another number in some pods, and as few slices as possible change. Nothing here reads or
writes objects of the store.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import orjson

from wasmlet.controlplane.controllers.workloads import pods as podlist
from wasmlet.controlplane.controllers.workloads.ownership import controller_reference, uid_of
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Record

MOST = 100
"""How many endpoints a slice has at most (`--max-endpoints-per-slice`)."""
SERVICE = "kubernetes.io/service-name"
MANAGED = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
_HEADLESS = "service.kubernetes.io/headless"
_RESERVED = (SERVICE, MANAGED, _HEADLESS)
_PREFIX = 58


@attrs.frozen
class Changes:
    """The writes after which a Service has the slices that it should have."""

    create: list[Object] = attrs.field(factory=list)
    update: list[tuple[Record, Object]] = attrs.field(factory=list)
    delete: list[Record] = attrs.field(factory=list)


def _families(service: Object) -> list[str]:
    return [str(item) for item in service["spec"].get("ipFamilies") or ("IPv4",)]


def _addresses(pod: Object, family: str) -> list[str]:
    status = pod.get("status") or {}
    given = [item.get("ip") for item in status.get("podIPs") or () if isinstance(item, dict)] or [status.get("podIP")]
    out = []
    for text in given:
        try:
            address = ipaddress.ip_address(str(text or ""))
        except ValueError:  # it has none yet
            continue
        if f"IPv{address.version}" == family:
            out.append(str(address))
    return out


def _number(pod: Object, port: Object) -> int | None:
    """The port of a pod that a port of a Service means; None where the pod has none of that name (`FindPort`)."""
    target = port.get("targetPort")
    if not isinstance(target, str):
        return target
    spec = pod["spec"]
    sidecars = [item for item in spec.get("initContainers") or () if item.get("restartPolicy") == "Always"]
    for container in (*(spec.get("containers") or ()), *sidecars):
        for item in container.get("ports") or ():
            if item.get("name") == target and item.get("protocol", "TCP") == port.get("protocol"):
                return int(item["containerPort"])
    return None


def _ports(service: Object, pod: Object) -> list[Object]:
    out = []
    for port in service["spec"].get("ports") or ():
        number = _number(pod, port)
        if number is None:
            continue
        made = {"name": port.get("name") or "", "port": number, "protocol": port.get("protocol", "TCP")}
        if port.get("appProtocol"):
            made["appProtocol"] = port["appProtocol"]
        out.append(made)
    return out


def _endpoint(service: Object, pod: Record, addresses: list[str], zones: dict[str, str]) -> Object:
    raw = pod.raw
    serving, terminating = podlist.ready_since(raw) is not None, podlist.leaving(raw)
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not terminating)
    endpoint: Object = {
        "addresses": addresses,
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": uid_of(raw)},
    }
    if pod.node:
        endpoint["nodeName"] = pod.node
        if zone := zones.get(pod.node):
            endpoint["zone"] = zone
    spec = raw["spec"]
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        endpoint["hostname"] = spec["hostname"]
    return endpoint


def reconcile(service: Record, pods: Iterable[Record], present: Iterable[Record], zones: dict[str, str]) -> Changes:
    """The changes that a Service's slices need.

    Args:
        pods: those that its selector chooses.
        present: the slices that this controller has made for it.
        zones: the zone of each node that has one.
    """
    changes = Changes()
    families = _families(service.raw)
    chosen = sorted((pod for pod in pods if not podlist.finished(pod.raw)), key=lambda pod: pod.name)
    slices = list(present)
    changes.delete.extend(item for item in slices if item.raw.get("addressType") not in families)
    for family in families:
        of_family = [item for item in slices if item.raw.get("addressType") == family]
        _reconcile_family(service, family, _groups(service.raw, chosen, family, zones), of_family, changes)
    return changes


def _groups(
    service: Object, pods: Iterable[Record], family: str, zones: dict[str, str]
) -> dict[bytes, tuple[list[Object], list[Object]]]:
    """The endpoints of an address family, grouped by their ports: ports as JSON, to the ports and their endpoints."""
    out: dict[bytes, tuple[list[Object], list[Object]]] = {}
    for pod in pods:
        if addresses := _addresses(pod.raw, family):
            ports = _ports(service, pod.raw)
            group = out.setdefault(_key(ports), (ports, []))
            group[1].append(_endpoint(service, pod, addresses, zones))
    return out


def _key(ports: object) -> bytes:
    return orjson.dumps(ports or [], option=orjson.OPT_SORT_KEYS)


def _reconcile_family(
    service: Record,
    family: str,
    groups: dict[bytes, tuple[list[Object], list[Object]]],
    present: Sequence[Record],
    changes: Changes,
) -> None:
    by_ports: dict[bytes, list[Record]] = {}
    for item in present:
        by_ports.setdefault(_key(item.raw.get("ports")), []).append(item)
    unused: list[Record] = []
    fresh: list[Object] = []
    for key in by_ports.keys() - groups.keys():
        unused += by_ports[key]
    for key, (ports, endpoints) in groups.items():
        fresh += _spread(service, family, ports, endpoints, by_ports.get(key, []), changes)
    if not groups:  # an empty slice shows that there are no endpoints
        fresh.append(_slice(service, family, [], []))
    for body in fresh:  # a slice that has other ports now is better than a new one
        if unused:
            _change(unused.pop(0), body, changes)
        else:
            changes.create.append(body)
    changes.delete.extend(unused)


def _spread(
    service: Record,
    family: str,
    ports: list[Object],
    endpoints: list[Object],
    present: Sequence[Record],
    changes: Changes,
) -> list[Object]:
    """Distribute endpoints with the same ports over the slices with these ports.

    An endpoint stays in its slice; new ones go where there is room.

    Returns:
        New slices for the endpoints that are left.
    """
    rest = {_target(item): item for item in endpoints}
    filled: list[tuple[Record, list[Object]]] = []
    for item in present:
        stay = [rest.pop(key) for had in item.raw.get("endpoints") or () if (key := _target(had)) in rest]
        filled.append((item, stay))
    left = list(rest.values())
    for _, stay in sorted(filled, key=lambda pair: -len(pair[1])):
        if left and stay:
            room = MOST - len(stay)
            stay += left[:room]
            left = left[room:]
    for item, stay in filled:
        if not stay and left:
            stay += left[:MOST]
            left = left[MOST:]
        if stay:
            _change(item, _slice(service, family, ports, stay), changes)
        else:
            changes.delete.append(item)
    return [_slice(service, family, ports, left[at : at + MOST]) for at in range(0, len(left), MOST)]


def _target(endpoint: Object) -> str:
    return str((endpoint.get("targetRef") or {}).get("uid"))


def _slice(service: Record, family: str, ports: list[Object], endpoints: list[Object]) -> Object:
    labels = {
        key: value for key, value in (service.raw["metadata"].get("labels") or {}).items() if key not in _RESERVED
    }
    if service.raw["spec"].get("clusterIP") in ("None", "", None):
        labels[_HEADLESS] = ""
    labels |= {SERVICE: service.name, MANAGED: MANAGER}
    return {
        "metadata": {
            "generateName": f"{service.name[:_PREFIX]}-",
            "labels": labels,
            "ownerReferences": [controller_reference(service)],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    }


def _change(present: Record, body: Object, changes: Changes) -> None:
    """Note the update of a slice, if it differs from what it should be."""
    raw: dict[str, Any] = present.raw
    same = all((raw.get(key) or []) == (body[key] or []) for key in ("addressType", "endpoints", "ports"))
    metadata = raw["metadata"]
    wanted = {key: body["metadata"][key] for key in ("labels", "ownerReferences")}
    if not same or any(metadata.get(key) != value for key, value in wanted.items()):
        kept = {key: body[key] for key in ("addressType", "endpoints", "ports")}
        changes.update.append((present, {**raw, **kept, "metadata": {**metadata, **wanted}}))
