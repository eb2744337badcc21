"""What a provider is told and what it says: values, and the caller's side of streams and connections.

`wasmlet.provider` has the calls that they belong to, and exports them all.
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
    """Which part of a container's log is wanted; the fields of `PodLogOptions` in the Kubernetes API.

    `since_time` is the start (aware, UTC) that `sinceSeconds` or `sinceTime` gave; lines before it are left out.
    `tail_lines` counts lines after that, and 0 is none. `limit_bytes` cuts the stream, within a line if need be. With
    `follow` the stream goes on until the container has ended for good or the pod is deleted. With `previous` the log of
    the instance before the present one is meant. With `timestamps` each line opens with its RFC 3339 time and a space.
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
    """An image that is on the node: what it is called, and its size in bytes."""

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
        capacity, allocatable: resource name to quantity (`{"cpu": "2", "memory": "4Gi"}`); allocatable defaults to
            capacity; `pods` is set from the node's own limit where it is left out.
        conditions: beside Ready, which the node loop owns. The pressure conditions that are left out are "False".
        addresses: beside those the node loop knows.
        labels, annotations, taints: added when the node registers.
        system_info: fields of `status.nodeInfo` (`containerRuntimeVersion`, `operatingSystem`, ...).
        runtime_handlers: RuntimeClass handlers that pods may ask for; "" (the default) is always allowed. The node gets
            a label `handler.wasmlet.dev/<name>: "true"` for each, for the selector of its RuntimeClass.
        handler_features: of each of them, by the names of the API (`recursiveReadOnlyMounts`).
        operating_system, architecture: what the pods' programs are made for, in the words of Kubernetes: labels and
            fields of the Node. Without them they are this machine's, as `linux` and `amd64`; a provider that runs
            WebAssembly says `wasi` and `wasm`.
        images: the largest first; 50 of them are shown, and 5 names of each.
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
    """The pod's status is now this. Only the newest matters; order between pods does not."""

    key: PodKey
    status: PodStatus


@attrs.frozen
class PodEvent:
    """Something to tell the pod's owner, shown by `kubectl describe`. `reason` is a kubelet's word (`Pulled`)."""

    key: PodKey
    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"
    container_field: str = ""
    """`spec.containers{name}` where one container is concerned."""


@attrs.frozen
class NodeChanged:
    """The answer of `Provider.node_status` is another one now."""


Change = StatusChanged | PodEvent | NodeChanged


@attrs.frozen
class NodeContext:
    """What a provider is told of the node when it starts.

    `state_dir` is a directory of this node alone, mode 0700, that outlives the process; it exists. `cluster_dns` has
    the addresses of the cluster's DNS service, none where nobody said, and `cluster_domain` the domain that it serves.
    `node` gives the Node object as the API has it now; before the node has registered, that is its name alone.
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
        stdin, stdout, stderr: which of them the caller has connected. A command whose stdin is not gets none (as from
            /dev/null); what is written to an output that is not connected is dropped.
        tty: the command is to have a terminal. There is one output then: everything goes to stdout, stderr is never
            connected, and the end of stdin does not close the terminal.
    """

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    async def read_stdin(self) -> bytes:
        """The next bytes of stdin, of any size; b"" once the caller has closed it or if it is not connected.

        Read no faster than the command takes it: what is not read is held back at the caller.
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
        """Wait for the next terminal size, as columns and rows; only the newest is given, and without a tty none."""
        ...


class Channel(Protocol):
    """A byte stream in both directions, one connection of a port-forward."""

    async def read(self) -> bytes:
        """The next bytes from the caller, of any size; b"" once it sends no more, after which it may still read."""
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
    """A figure of a provider's own that a node shows at `/metrics`, as a gauge.

    Attributes:
        name: as Prometheus writes names; `wasmlet_` is put before it.
        text: what it says, in a sentence.
        labels: what it is of; all figures of one name have the same labels.
    """

    name: str
    text: str
    value: float
    labels: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class ProbeCount:
    """Which results of probes are counted together; the labels of `prober_probe_total`.

    `result` is "successful" or "failed".
    """

    pod: PodKey
    container: str
    kind: ProbeKind
    result: str
