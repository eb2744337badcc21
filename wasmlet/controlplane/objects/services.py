"""What the API server adds to a Service: a cluster IP and, if its type has them, node ports. And its validation.

Nothing routes these addresses here; they only appear in objects and in pods' environment variables. Clients reach the
pods themselves, at the addresses in the Service's EndpointSlices.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from wasmlet.controlplane.objects.validation import DNS_LABEL, LABEL_RULE, labels
from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.status import Cause, Object, invalid
from wasmlet.controlplane.storage.store import Store

ADDRESSES = ipaddress.IPv4Network("10.96.0.0/20")
"""The range of cluster IPs; the first one is that of the Service `kubernetes`."""
NODE_PORTS = range(30000, 32768)
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_FROM_OUTSIDE = ("LoadBalancer", "NodePort")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_GIVEN = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort")
"""The fields that an update keeps if it leaves them out."""


def warnings(service: Object) -> list[str]:
    """What a Service asks for and does not get, since no kube-proxy and no load balancer is here; each a sentence.

    Args:
        service: as it is stored: with its port numbers.
    """
    spec, name = service["spec"], service["metadata"].get("name") or "NAME"
    if not isinstance(spec, dict) or spec.get("type") not in _FROM_OUTSIDE:
        return []
    port = next((port.get("port") for port in _ports(spec)), "PORT")
    lacks = "" if spec["type"] == "NodePort" else "this Service gets no address from outside, and "
    what = f"use kubectl port-forward service/{name} LOCAL:{port}, or the address of a pod"
    return [f"{lacks}nothing listens at its node ports here; {what}"]


class Services:
    """Admission of Services; addresses and ports must not be used by other Services in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last = 1

    def admit(self, obj: Object) -> list[str]:
        """Complete a new Service, after defaults.

        Returns:
            Warnings for whoever makes it.

        Raises:
            ApiError: 422, the address or the node port that it asks for is taken or out of range, or none is left.
        """
        self._complete(obj, None)
        return warnings(obj)

    def update(self, new: Object, old: Object) -> list[str]:
        """Complete a changed Service, after defaults: it keeps its address and its node ports.

        Returns:
            Warnings for whoever changes it; none that there were before.

        Raises:
            ApiError: as for a new one.
        """
        spec, before = new["spec"], old.get("spec") or {}
        if spec.get("type") != "ExternalName":
            for key in _GIVEN:
                if not spec.get(key) and before.get(key):
                    spec[key] = before[key]
            known = {_key(port): _node_port(port) for port in _ports(before)}
            for port in _ports(spec):
                if not port.get("nodePort") and (kept := known.get(_key(port))):
                    port["nodePort"] = kept
        self._complete(new, old)
        return [] if before.get("type") == spec.get("type") else warnings(new)

    def _complete(self, obj: Object, old: Object | None) -> None:
        spec = obj["spec"]
        if not isinstance(spec, dict):
            return
        name = str(obj["metadata"].get("name", ""))
        if spec.get("type") == "ExternalName":
            for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(key, None)
        else:
            wanted = str(spec.get("clusterIP") or "")
            given = str((old or {}).get("spec", {}).get("clusterIP") or "")
            if not wanted:
                spec["clusterIP"] = self._address(name)
            elif wanted not in ("None", given):
                self._check_address(name, wanted)
            if spec.get("clusterIPs") in (None, []):
                spec["clusterIPs"] = [spec["clusterIP"]]
            spec.setdefault("ipFamilies", ["IPv4"])
            spec.setdefault("ipFamilyPolicy", "SingleStack")
        self._node_ports(name, spec, old)

    def _taken(self) -> set[str]:
        return {str((record.raw.get("spec") or {}).get("clusterIP")) for record in self._store["services"]}

    def _address(self, name: str) -> str:
        """An address that no Service has; in turn, as clients may still know one that was freed lately."""
        taken, size = self._taken(), ADDRESSES.num_addresses
        for _ in range(size):
            self._last = self._last + 1 if self._last < size - 2 else 2
            if (address := str(ADDRESSES[self._last])) not in taken:
                return address
        raise invalid(
            core("services"), name, [Cause.invalid("spec.clusterIP", "", f"no address of {ADDRESSES} is free")]
        )

    def _check_address(self, name: str, wanted: str) -> None:
        try:
            inside = ipaddress.ip_address(wanted) in ADDRESSES
        except ValueError:
            inside = False
        why = "" if inside else f"must be an address of {ADDRESSES}, or None"
        if inside and wanted in self._taken():
            why = f"failed to allocate IP {wanted}: provided IP is already allocated"
        if why:
            raise invalid(core("services"), name, [Cause.invalid("spec.clusterIPs", wanted, why)])

    def _node_ports(self, name: str, spec: Object, old: Object | None) -> None:
        if spec.get("type") not in _FROM_OUTSIDE:
            for port in _ports(spec):
                port.pop("nodePort", None)
            return
        own = {_node_port(port) for port in _ports((old or {}).get("spec") or {})}
        taken = {_node_port(port) for record in self._store["services"] for port in _ports(record.raw["spec"])}
        given = {_node_port(port) for port in _ports(spec)}
        free = (number for number in NODE_PORTS if number not in taken and number not in given)
        for at, port in enumerate(_ports(spec)):
            number, why = _node_port(port), ""
            if not number:
                number = port["nodePort"] = next(free, 0)
                why = "" if number else "no port is free"
            elif number not in NODE_PORTS:
                why = f"provided port is not in the valid range: {NODE_PORTS[0]}-{NODE_PORTS[-1]}"
            elif number in taken - own:
                why = "provided port is already allocated"
            if why:
                raise invalid(core("services"), name, [Cause.invalid(f"spec.ports[{at}].nodePort", number, why)])


def _ports(spec: Object) -> list[Object]:
    ports = spec.get("ports")
    return [port for port in ports if isinstance(port, dict)] if isinstance(ports, list) else []


def _key(port: Object) -> tuple[str, str]:
    return str(port.get("port")), str(port.get("protocol"))


def _node_port(port: Object) -> int:
    number = port.get("nodePort")
    return number if isinstance(number, int) else -1 if number else 0


def check(obj: Object, old: Object | None) -> Iterator[Cause]:
    """What is wrong with a Service (a part of `ValidateService`); `old` is what it replaces."""
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        yield Cause.required("spec")
        return
    kind, headless = spec.get("type"), spec.get("clusterIP") == "None"
    if kind not in _TYPES:
        yield Cause.unsupported("spec.type", kind, _TYPES)
    if kind == "ExternalName" and not spec.get("externalName"):
        yield Cause.required("spec.externalName")
    if headless and kind != "ClusterIP":
        yield Cause.invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
    before = (old or {}).get("spec") or {}
    kept = "ExternalName" not in (kind, before.get("type")) and before.get("clusterIP")
    if kept and kept != spec.get("clusterIP"):
        yield Cause.invalid("spec.clusterIPs[0]", spec.get("clusterIP"), "may not change once set")
    yield from labels(spec.get("selector"), "spec.selector")
    ports = spec.get("ports")
    if not ports and not headless and kind != "ExternalName":
        yield Cause.required("spec.ports")
    elif not isinstance(ports, list | None) or not all(isinstance(port, dict) for port in ports or ()):
        yield Cause.invalid("spec.ports", str(ports), "must be a list of objects")
    else:
        yield from _check_ports(ports or [])


def _check_ports(ports: list[Object]) -> Iterator[Cause]:
    names: set[object] = set()
    pairs: set[object] = set()
    for at, port in enumerate(ports):
        field, name = f"spec.ports[{at}]", port.get("name") or ""
        if not name and len(ports) > 1:
            yield Cause.required(f"{field}.name")
        elif name and (not isinstance(name, str) or not DNS_LABEL.fullmatch(name)):
            yield Cause.invalid(f"{field}.name", name, LABEL_RULE)
        elif name in names:
            yield Cause.duplicate(f"{field}.name", name)
        names.add(str(name))
        number, target, protocol = port.get("port"), port.get("targetPort"), port.get("protocol")
        if not _is_port(number):
            yield Cause.invalid(f"{field}.port", number, "must be between 1 and 65535, inclusive")
        if protocol not in _PROTOCOLS:
            yield Cause.unsupported(f"{field}.protocol", protocol, _PROTOCOLS)
        if isinstance(target, str):
            if not DNS_LABEL.fullmatch(target) or len(target) > 15 or target.isdigit():
                yield Cause.invalid(f"{field}.targetPort", target, "must be the name of a port, or a number")
        elif not _is_port(target):
            yield Cause.invalid(f"{field}.targetPort", target, "must be between 1 and 65535, inclusive")
        if _key(port) in pairs:
            yield Cause.duplicate(field, f"{number}/{protocol}")
        pairs.add(_key(port))


def _is_port(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536
