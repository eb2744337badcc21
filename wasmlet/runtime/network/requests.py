"""What a manifest asks of the network (ports, host ports, host network), and which of that the node refuses."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import attrs

from wasmlet.errors import Refused
from wasmlet.model.pod import Container, Pod, Raw
from wasmlet.model.restart import is_sidecar
from wasmlet.runtime.network import bandwidth, egress, http_serving
from wasmlet.runtime.network.network import HostPort, NetworkRequest
from wasmlet.runtime.network.node_network import NodeNetwork
from wasmlet.worker.grants import MAX_PORTS, TCP, UDP

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
HOOKS = ("postStart", "preStop")
OVER_NETWORK = ("httpGet", "tcpSocket", "grpc")
"""Handlers of probes and hooks that ask the pod's address."""
_ANY_ADDRESS = ("", "0.0.0.0", "::")


@attrs.frozen
class ContainerPort:
    """An entry of a container's `ports`.

    Attributes:
        field: its path in the manifest.
        host_port: of the node; 0 for none.
        host_ip: the address of the node; "" for all of them.
    """

    field: str
    number: int
    name: str
    protocol: str
    host_port: int
    host_ip: str


def ports_of(container: Container, *, host: bool) -> list[ContainerPort]:
    """The ports of a container, in their order.

    Args:
        host: the pod has the node's own network, where a port is one of the node's without more words.
    """
    found = []
    for index, raw in enumerate(container.raw.get("ports") or ()):
        number, host_ip = int(raw["containerPort"]), str(raw.get("hostIP") or "")
        host_port = number if host else int(raw.get("hostPort") or 0)
        found.append(
            ContainerPort(
                f"{container.field}.ports[{index}]",
                number,
                str(raw.get("name") or ""),
                str(raw.get("protocol") or TCP),
                host_port,
                "" if host_ip in _ANY_ADDRESS else host_ip,
            )
        )
    return found


def declared(container: Container) -> tuple[int, ...]:
    """The ports of TCP that a container declares."""
    return tuple(port.number for port in ports_of(container, host=False) if port.protocol == TCP)


def on_host(pod: Pod) -> bool:
    """Whether the pod asks for the node's own network."""
    return bool(pod.spec.get("hostNetwork"))


def wants_network(pod: Pod, *, dense: bool) -> bool:
    """Whether the pod gets a network, where the node has one for it.

    A pod whose containers share a process with others gets one only where it says what for, because there may be
    thousands of them.
    """
    if not dense or on_host(pod) or egress.ANNOTATION in pod.annotations:
        return True
    if egress.KRUSTLET_ANNOTATION in pod.annotations:
        return True
    return any(map(_wants_network, _lasting(pod)))


def _wants_network(container: Container) -> bool:
    lifecycle = container.raw.get("lifecycle") or {}
    handlers = [container.raw.get(name) for name in PROBES] + [lifecycle.get(name) for name in HOOKS]
    asked = any(kind in handler for handler in handlers if handler for kind in OVER_NETWORK)
    return asked or bool(container.raw.get("ports"))


def listened(container: Container, variables: Mapping[str, str], *, host: bool, serves: bool) -> list[ContainerPort]:
    """The ports that a container has, in their order: those that it declares, or the one of a server of HTTP.

    Args:
        variables: of the container, of which `PORT` names a server's port where none is declared.
        host: see `ports_of`.
        serves: it serves HTTP, which needs a port of TCP.

    Raises:
        Refused: `PORT` is no port.
    """
    found = ports_of(container, host=host)
    if serves and not any(port.protocol == TCP for port in found):
        text = variables.get(http_serving.VARIABLE) or str(http_serving.PORT)
        if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= 65535):
            raise Refused(
                f"{container.field}.env",
                f"expected {http_serving.VARIABLE} to be a port from 1 to 65535, at which HTTP is served, found "
                f"{text[:40]!r}",
                container=container.name,
            )
        found.append(ContainerPort("", int(text), "http", TCP, 0, ""))
    return found


def beside(pod: Pod, container: Container) -> Mapping[int, str]:
    """The TCP ports that are declared by other containers which run at the same time, with these containers' names."""
    others = [one for one in (*filter(is_sidecar, pod.init_containers), *pod.containers) if one.name != container.name]
    return {port: one.name for one in others for port in declared(one)}


def request_of(pod: Pod, ports: Collection[int] = ()) -> NetworkRequest:
    """What the pod asks of its network.

    Args:
        ports: of TCP, at which its containers may listen now.
    """
    host = on_host(pod)
    found = [port for container in _lasting(pod) for port in ports_of(container, host=host)]
    return NetworkRequest(
        pod.key,
        host,
        ports,
        [HostPort(p.host_ip, p.host_port, p.number, p.protocol) for p in found if p.host_port and not host],
        bandwidth.asked(pod.annotations),
    )


def check(pod: Pod, network: NodeNetwork, *, sockets: bool = True) -> None:
    """Raise for the first thing that the pod asks of its network and cannot have.

    Args:
        sockets: whether the engine that runs it gives its guests sockets; else its ports are only declared.

    Raises:
        Refused: names the field or the annotation.
    """
    if on_host(pod) and not network.host:
        raise Refused(
            "spec.hostNetwork",
            "this node gives pods no network of its own; its owner can: --allow-host-network",
        )
    on = network.given(host=on_host(pod))
    if on:
        egress.of_pod(pod)
        http_serving.of_pod(pod)
    for container in _lasting(pod) if sockets or not on else ():
        for field, why in _port_refusals(container, network, on_host(pod)):
            raise Refused(field, why, container=container.name)


def _port_refusals(container: Container, network: NodeNetwork, host: bool) -> Iterator[tuple[str, str]]:
    raw: Sequence[Raw] = container.raw.get("ports") or ()
    if not network.given(host=host):
        if any(port.get("hostPort") for port in raw):
            yield f"{container.field}.ports", "hostPort cannot be given: a guest has no network"
        return
    if len(raw) > MAX_PORTS:
        yield f"{container.field}.ports", f"expected at most {MAX_PORTS} ports, found {len(raw)}"
    for port in ports_of(container, host=host):
        if port.protocol != TCP:
            continue
        if port.host_ip and not _is_address(port.host_ip):
            yield f"{port.field}.hostIP", f"expected an address of the node, found {port.host_ip[:80]!r}"
        elif port.host_ip and network.has_for_pods(port.host_ip):
            yield f"{port.field}.hostIP", f"expected an address of the node, found one of pods, {port.host_ip}"
        wanted = (("containerPort", 0 if network.namespaces else port.number), ("hostPort", port.host_port))
        for name, number in wanted:
            if number and (why := kept_to_root(number, network)):
                yield f"{port.field}.{name}", why


def kept_to_root(number: int, network: NodeNetwork) -> str:
    """Why a port of the node's own network cannot be listened at; "" where it can."""
    if number >= network.least_port:
        return ""
    return (
        f"{number} cannot be listened at: the node does not run as root, and the kernel keeps ports below "
        f"{network.least_port} to root (ip_unprivileged_port_start); use one from {network.least_port} on"
    )


def unserved(container: Container, *, namespace: bool, no_sockets: str = "", mapped: bool = False) -> Iterator[str]:
    """The declared ports of a container that cannot be reached, in words for the pod's owner.

    Args:
        namespace: whether the pod has a network namespace of its own.
        no_sockets: why its guest has no sockets; "" where it has.
        mapped: whether the network itself sees to host ports.
    """
    for port in ports_of(container, host=False):
        what = f"Port {port.number}/{port.protocol} of container {container.name} is not listened at"
        if no_sockets:
            yield f"{what}: {no_sockets}"
        elif port.protocol == UDP and not namespace:
            yield f"{what}: without a network namespace of its own, a pod listens at TCP ports alone"
        elif port.protocol not in (TCP, UDP):
            yield f"{what}: guests have sockets of TCP and UDP"
        elif port.protocol == UDP and port.host_port and not mapped:
            yield (
                f"{what} on the node (hostPort {port.host_port}): only a CNI plugin such as portmap can map a port of "
                "UDP, and this node's configuration has none"
            )


def _lasting(pod: Pod) -> Sequence[Container]:
    return (*pod.init_containers, *pod.containers)


def _is_address(text: Any) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
