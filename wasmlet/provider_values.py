"""The values that the node loop and a provider exchange, and the caller's side of streams and connections.

`wasmlet.provider` has the methods that take and return them, and exports them all.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import attrs

from wasmlet.model.pod import PodKey, Raw
from wasmlet.model.status import Condition, PodStatus

ProbeKind = Literal["Startup", "Liveness", "Readiness"]


@attrs.frozen
class LogOptions:
    """Which part of a container's log is wanted: the fields of `PodLogOptions` in the Kubernetes API.

    Attributes:
        follow: the stream goes on until the container has ended for good or the pod is deleted.
        previous: the log of the instance before the present one.
        timestamps: each line begins with its RFC 3339 time and a space.
        since_time: earlier lines are left out (aware, UTC); `sinceSeconds` and `sinceTime` become this.
        tail_lines: so many lines of the end, counted after `since_time`; 0 means no line.
        limit_bytes: the stream is cut after so many bytes, inside a line if need be.
    """

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since_time: datetime | None = None
    tail_lines: int | None = None
    limit_bytes: int | None = None


@attrs.frozen
class Address:
    """An address of the node, as `status.addresses` has it."""

    type: Literal["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"]
    address: str


@attrs.frozen
class Taint:
    """A taint that the node registers with."""

    key: str
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"


@attrs.frozen
class NodeImage:
    """An image that is on the node.

    Attributes:
        names: its names, with tags and digests.
        size: bytes.
    """

    names: Sequence[str]
    size: int


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
"""What Kubernetes calls machines that the kernel calls otherwise."""


def _machine() -> str:
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


@attrs.frozen
class NodeStatus:
    """What a provider says of the node that it makes.

    Attributes:
        capacity: resource name to quantity: `{"cpu": "2", "memory": "4Gi"}`. Without `pods`, the node's own limit
            (`--max-pods`) counts.
        allocatable: what pods may have of it; without it, all of the capacity.
        conditions: conditions beside Ready, which the node loop sets. The pressure conditions that are left out are
            "False".
        addresses: addresses beside those that the node loop knows.
        labels: labels that are added when the node registers.
        annotations: annotations that are added when the node registers.
        taints: taints that are added when the node registers.
        system_info: fields of `status.nodeInfo` (`containerRuntimeVersion` and others).
        runtime_handlers: handlers of RuntimeClasses that pods may ask for; "" (none) is always allowed. For each, the
            Node has a label `handler.wasmlet.dev/<name>: "true"`, for the selector of its RuntimeClass.
        handler_features: what each of them can do, by the names of the API (`recursiveReadOnlyMounts`).
        operating_system: the system that the pods' programs are made for, for a label and a field of the Node. The
            default is this machine's (`linux`); a provider that runs WebAssembly says `wasi`.
        architecture: the architecture that they are made for. The default is this machine's, in the words of Kubernetes
            (`amd64`); a provider that runs WebAssembly says `wasm`.
        images: the images on the node, the largest first. The Node shows 50 of them, and 5 names of each.
    """

    capacity: Mapping[str, str]
    allocatable: Mapping[str, str] | None = None
    conditions: Sequence[Condition] = ()
    addresses: Sequence[Address] = ()
    labels: Mapping[str, str] = attrs.field(factory=dict)
    annotations: Mapping[str, str] = attrs.field(factory=dict)
    taints: Sequence[Taint] = ()
    system_info: Mapping[str, str] = attrs.field(factory=dict)
    runtime_handlers: Sequence[str] = ()
    handler_features: Mapping[str, bool] = attrs.field(factory=dict)
    images: Sequence[NodeImage] = ()
    operating_system: str = attrs.field(factory=lambda: platform.system().lower())
    architecture: str = attrs.field(factory=_machine)


@attrs.frozen
class PodRecord:
    """One pod that a provider holds, as `Provider.list_pods` gives it."""

    key: PodKey
    status: PodStatus


@attrs.frozen
class StatusChanged:
    """A pod's status has changed, to this one. Only the newest of each pod counts."""

    key: PodKey
    status: PodStatus


@attrs.frozen
class PodEvent:
    """An event for the pod's owner, which `kubectl describe pod` shows. `reason` is a kubelet's word (`Pulled`)."""

    key: PodKey
    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"
    container_field: str = ""
    """`spec.containers{name}` where one container is concerned."""


@attrs.frozen
class NodeChanged:
    """`Provider.node_status` has another answer now."""


Change = StatusChanged | PodEvent | NodeChanged


@attrs.frozen
class NodeContext:
    """What a provider is told of the node when it starts.

    Attributes:
        node_name: the name of the Node.
        node_ip: the address at which the API server reaches the node.
        max_pods: how many pods the node takes.
        state_dir: a directory of this node alone, mode 0700. It exists, and outlives the process.
        cluster_dns: addresses of the cluster's DNS service; empty if nobody has said them.
        cluster_domain: the domain that the DNS service serves.
        node: gives the Node object as the API has it now. Before the node has registered, that is its name alone.
    """

    node_name: str
    node_ip: str
    max_pods: int
    state_dir: Path
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    node: Callable[[], Raw] = dict


class Streams(Protocol):
    """The caller's side of an exec or attach: bytes in, bytes out, terminal sizes.

    Attributes:
        stdin: whether the caller has connected it. Without it, a command gets no input, as from /dev/null.
        stdout: whether the caller has connected it. What is written to an output that is not connected is dropped.
        stderr: likewise.
        tty: whether the command has a terminal. Then there is one output: everything goes to stdout, and the end of
            stdin does not close the terminal.
    """

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    async def read_stdin(self) -> bytes:
        """The next bytes of stdin, of any size; b"" when the caller has closed it, or if it is not connected.

        Read only as fast as the command takes it: what is not read waits at the caller.
        """
        ...

    async def write_stdout(self, data: bytes) -> None:
        """Send output; waits while the caller does not read.

        Raises:
            ConnectionError: the caller takes no more of it. (A caller that leaves is told by cancelling the call.)
        """
        ...

    async def write_stderr(self, data: bytes) -> None:
        """As `write_stdout`."""
        ...

    async def next_size(self) -> tuple[int, int]:
        """Wait for the next size of the terminal: columns and rows. Only the newest is given; without a tty, none."""
        ...


class Channel(Protocol):
    """A byte stream in both directions, one connection of a port-forward."""

    async def read(self) -> bytes:
        """The next bytes from the caller, of any size; b"" when it sends no more. It may still read after that."""
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes to the caller; waits while it does not read.

        Raises:
            ConnectionError: the caller takes no more of it. (A caller that leaves is told by cancelling the call.)
        """
        ...


@attrs.frozen
class NoConfig:
    """The settings of a provider that has none."""


@attrs.frozen
class Figure:
    """A figure of a provider's own, which a node shows at `/metrics` as a gauge.

    Attributes:
        name: a name as Prometheus writes them; `wasmlet_` is put before it.
        text: what the figure says, in a sentence.
        value: the figure.
        labels: what it belongs to; all figures of one name have the same labels.
    """

    name: str
    text: str
    value: float
    labels: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class ProbeCount:
    """Which results of probes are counted together: the labels of `prober_probe_total`.

    Attributes:
        pod: whose probe.
        container: the container's name.
        kind: which probe.
        result: "successful" or "failed".
    """

    pod: PodKey
    container: str
    kind: ProbeKind
    result: str
