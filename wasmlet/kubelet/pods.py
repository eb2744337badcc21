"""The pods of a node, as its API needs them. `wasmlet.node.pods` has the classes that fit these protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from wasmlet.model.pod import Pod, Raw
from wasmlet.model.status import PodStatus


class PodView(Protocol):
    """A pod and what is known of it now."""

    @property
    def pod(self) -> Pod: ...

    @property
    def status(self) -> PodStatus | None: ...

    @property
    def shown(self) -> Raw:
        """The pod as the API will have it, with its newest status."""
        ...


class PodSource(Protocol):
    """The pods of the node."""

    def find(self, namespace: str, name: str, uid: str | None = None) -> PodView | None: ...

    def all(self) -> Sequence[PodView]: ...
