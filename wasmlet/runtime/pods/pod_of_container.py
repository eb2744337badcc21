"""`PodOfContainer`: the interface through which a container uses its pod. `pod` implements it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, Protocol

from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.runtime.files.volumes import PodVolumes
from wasmlet.runtime.handlers import Handler
from wasmlet.runtime.pods.sandbox import Sandbox
from wasmlet.runtime.services import RuntimeServices


class PodOfContainer(Protocol):
    """What a container needs of its pod."""

    @property
    def services(self) -> RuntimeServices: ...

    @property
    def key(self) -> PodKey: ...

    @property
    def accepted(self) -> bool:
        """Whether the pod's manifest is here; before that only what the shim says of it is known."""
        ...

    @property
    def manifest(self) -> Pod:
        """The pod as it was accepted last."""
        ...

    @property
    def inputs(self) -> Inputs: ...

    def now(self) -> tuple[Pod, Inputs]:
        """The two above."""
        ...

    @property
    def volumes(self) -> PodVolumes: ...

    @property
    def ips(self) -> Sequence[str]:
        """Its own addresses, the main one first; empty where it has none (yet)."""
        ...

    @property
    def ports(self) -> Collection[int] | None:
        """See `wasmlet.runtime.network.dialing.Place`."""
        ...

    @property
    def sandbox(self) -> Sandbox: ...

    @property
    def logs(self) -> str:
        """What the paths of its containers' logs begin with, relative to the state directory."""
        ...

    @property
    def handler(self) -> Handler:
        """What runs the pod.

        Raises:
            Refused: the node does not offer it any more.
        """
        ...

    def publish(self) -> None:
        """Hand the pod's status on, if it is another one now."""
        ...

    def say(self, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:  # noqa: A002
        """Tell the pod's owner of something that is about the pod as a whole."""
        ...

    def event(self, type: Literal["Normal", "Warning"], reason: str, message: str, field: str) -> None:  # noqa: A002
        """Tell the pod's owner of something that is about a part of it."""
        ...
