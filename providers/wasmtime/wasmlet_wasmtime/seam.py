"""The types of the broker's client, for type checking: `wasmlet.worker.guest.sockets` implements them.

The broker is the process of the node that opens sockets for guests; a guest's own process may not. The worker passes
its client to the engine as `spec["sockets"]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol


class Answer(Protocol):
    """An answer of the broker. `error` is an errno of the host, 0 for none."""

    @property
    def fds(self) -> Sequence[int]: ...
    @property
    def fields(self) -> Mapping[str, Any]: ...
    @property
    def error(self) -> int: ...
    @property
    def why(self) -> str: ...


class Broker(Protocol):
    """The client of the broker in a container's process: `spec["sockets"]`."""

    wait: Callable[[int], bool]

    @property
    def listeners(self) -> Sequence[Any]: ...
    def open_listeners(self) -> Sequence[Sequence[int]]: ...
    def fileno(self) -> int: ...
    def begin(self, operation: str, **fields: Any) -> int: ...
    def take(self, number: int) -> Answer | None: ...
    def drop(self, number: int) -> None: ...
    def ask(self, operation: str, **fields: Any) -> Answer: ...
