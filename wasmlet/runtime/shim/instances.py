"""Instances of a container: the labels that the shim stores for us, and the container state that a record shows.

Labels hold what must survive a restart of this process: the node loop reads `restartCount`, the earlier state and the
back-off from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import attrs

from wasmlet.model.pod import Container, Pod, PodKey
from wasmlet.model.restart import is_sidecar
from wasmlet.model.status import ContainerState, Running, Terminated, Waiting
from wasmlet.runtime.shim.records import ContainerRecord
from wasmlet.worker import wire

Kind = Literal["init", "sidecar", "main", "ephemeral"]

WHERE: Mapping[Kind, str] = {
    "init": "initContainers",
    "sidecar": "initContainers",
    "main": "containers",
    "ephemeral": "ephemeralContainers",
}
"""Where the manifest has containers of each kind."""


@attrs.frozen
class Labels:
    """The labels of a container, which the shim stores for us.

    Attributes:
        attempt: counts instances from 0; the present one's is `restartCount`.
        backoff: seconds to wait after this instance has ended.
        handler: what runs it, see `wasmlet.runtime.handlers`; "" is the default, and stands in old records.
        user: the pod's own user id, see `files.pod_users`; 0 where it has none.
        ports: of TCP, at which it may listen; None in records of versions that did not write them: those that its
            manifest declares.
    """

    pod: PodKey
    container: str
    kind: Kind
    attempt: int
    image: str
    image_id: str
    backoff: float
    handler: str = ""
    user: int = 0
    ports: tuple[int, ...] | None = None

    def as_message(self) -> dict[str, Any]:
        # As attrs.asdict does it, which takes longer than all else that a start is asked for with.
        fields = {name: getattr(self, name) for name in _DEFAULTS}
        return {**fields, "pod": {"namespace": self.pod.namespace, "name": self.pod.name, "uid": self.pod.uid}}

    @classmethod
    def of(cls, labels: Mapping[str, Any]) -> Labels | None:
        """From a record; None where they are not of this form."""
        try:
            known = {
                name: labels[name] if default is attrs.NOTHING else labels.get(name, default)
                for name, default in _DEFAULTS.items()
            }
            ports = known["ports"]
            known["ports"] = None if ports is None else tuple(map(int, ports))
            return cls(**{**known, "pod": PodKey(**known["pod"])})
        except (KeyError, TypeError, ValueError):
            return None


_DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in attrs.fields(Labels)}


def kinds_of(pod: Pod) -> Iterator[tuple[Kind, Container]]:
    """Every container of the manifest and what kind it is."""
    for container in pod.init_containers:
        yield "sidecar" if is_sidecar(container) else "init", container
    for container in pod.containers:
        yield "main", container
    for container in pod.ephemeral_containers:
        yield "ephemeral", container


class Say(Protocol):
    """Tells a pod's owner of something that is about one container, as an Event."""

    def __call__(self, type: Literal["Normal", "Warning"], reason: str, message: str) -> None: ...  # noqa: A002


class Shown(Protocol):
    """A container as its status shows it."""

    @property
    def state(self) -> ContainerState:
        """What is shown now."""
        ...

    @property
    def creating(self) -> Waiting:
        """What is shown of a container that is on its way: ContainerCreating or PodInitializing."""
        ...

    def show(self, state: ContainerState) -> None:
        """Show this from now on."""
        ...

    def say(self, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:  # noqa: A002
        """Tell the pod's owner of something, as an Event."""
        ...


@attrs.frozen
class Target:
    """The present instance of a container, as a command in it names it."""

    pod: PodKey
    container: str


def state_of(record: ContainerRecord) -> ContainerState:
    """The container state that a record shows."""
    if record.state == wire.STARTING:
        return Waiting("ContainerCreating")
    if record.state == wire.RUNNING:
        return Running(_time(record.started))
    return Terminated(
        record.exit_code,
        record.reason or ("Completed" if record.exit_code == 0 else "Error"),
        record.message,
        record.signal or None,
        _time(record.started) if record.started else None,
        _time(record.finished) if record.finished else None,
        f"wasm://{record.id}",
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
