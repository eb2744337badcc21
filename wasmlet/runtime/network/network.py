"""`Network`: the interface of the three ways to give pods addresses: `none`, `address` and `cni` (`--network`).

A network belongs to a pod, not to its containers. The pod has it from before its first init container until its final
status. It stays the same when containers, the node loop or the shim restart.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import attrs

from wasmlet.errors import WasmletError
from wasmlet.model.pod import PodKey

POLICY_ANNOTATION = "wasmlet.dev/network-policy"
"""Of the Node: who enforces NetworkPolicy. Every network says it, so that none says what another has said before."""


class NetworkError(WasmletError):
    """A pod cannot get its network now. The message is for the pod's owner; it is tried again."""


@attrs.frozen
class HostPort:
    """A port of a container that is to be reached at a port of the node, too.

    Attributes:
        host_ip: of the node; "" for all of its addresses.
        host_port, container_port: 1 to 65535.
        protocol: `TCP` or `UDP`.
    """

    host_ip: str
    host_port: int
    container_port: int
    protocol: str


@attrs.frozen
class NetworkRequest:
    """What a pod asks of its network.

    Attributes:
        host: it wants the node's own network (`hostNetwork`).
        ports: of TCP, at which its containers may listen now.
        host_ports: those that are to be reached at the node, too.
        bandwidth: how much it may receive and send, as its annotations say it, by `ingress` and `egress`.
    """

    pod: PodKey
    host: bool = False
    ports: Collection[int] = ()
    host_ports: Sequence[HostPort] = ()
    bandwidth: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class PodNetwork:
    """The network that a pod has.

    Attributes:
        ips: its addresses, the first one its main one. Empty in `Network.list` alone, for a pod whose network was being
            made when the process ended.
        namespace: path of its network namespace; "" where it has none.
        mapped: whether the network itself forwards host ports; otherwise the broker binds them.
    """

    ips: tuple[str, ...]
    namespace: str = ""
    mapped: bool = False


class Network(abc.ABC):
    """One way to give pods addresses. Calls for different pods run side by side; for one pod one at a time.

    Attributes:
        name: as `--network` has it.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    async def check(self) -> None:
        """Find out whether this machine has what is needed.

        Raises:
            ConfigError: it has not; the message says what is missing.
        """

    @abc.abstractmethod
    async def add(self, request: NetworkRequest) -> PodNetwork | None:
        """Give a pod its network. If it has one already, only its ports change. Returns None for no network.

        Raises:
            NetworkError: not now.
        """

    @abc.abstractmethod
    async def remove(self, uid: str) -> None:
        """Remove everything that the pod with this UID has, even if nobody knows the pod. Nothing to do is no error.

        Raises:
            NetworkError: not now; something is left.
        """

    @abc.abstractmethod
    async def list(self) -> Mapping[str, PodNetwork]:
        """The networks of all pods by UID, including those from before this process."""

    @abc.abstractmethod
    def remarks(self) -> Mapping[str, str]:
        """Annotations of the Node that say what this network is and does not do."""

    async def close(self) -> None:  # noqa: B027 - a network may hold nothing
        """Let go of what this process holds. What pods have stays."""
