"""What a capability is, for those of this package and for those of others.

A capability is a class that is made once for each container that is granted it, and called for each thing that its
actor asks. Other distributions announce theirs in the entry-point group `wasmlet.wascc.capabilities`, by the name that
actors claim (`acme:clock`). They are imported before there is any guest, and run in the guest's own process: confined
as that is, with neither files nor sockets but by their `Context`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, NamedTuple, Protocol

from .failures import HostError, Silent
from .messages import BadMessage

__all__ = ["GROUP", "BadMessage", "Capability", "Context", "HostError", "Link", "Mount", "Silent", "others"]

GROUP = "wasmlet.wascc.capabilities"


class Mount(NamedTuple):
    """A directory of the container.

    Attributes:
        directory: a path that opens it.
    """

    directory: str
    read_only: bool


class Link(Protocol):
    """A connection that the pod was granted. What waits does so until the present call has to be over at the latest,
    and not longer than ten seconds for the other side to send or take something (`Silent`, a `HostError`)."""

    def secure(self, host: str) -> None:
        """Go on by TLS, before anything else goes over it, or where a protocol says so.

        Args:
            host: whose certificate the other side has to show, by the authorities that the node's system trusts.

        Raises:
            HostError: it does not.
        """
        ...

    def send(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            HostError: the connection is broken, or it takes too long.
        """
        ...

    def receive(self, *, patient: bool = False) -> bytes:
        """What comes next, at most 64 KiB; empty at the end.

        Args:
            patient: wait for two minutes, whatever the present call may take; in a thread of one's own.

        Raises:
            HostError: the connection is broken, or it takes too long.
        """
        ...

    def cut(self) -> None:
        """End it, also for a thread that waits for it."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Context(NamedTuple):
    """What a capability has of its container.

    Attributes:
        settings: what the pod says of the capability, by annotations.
        env: the container's variables, in which there may be secrets.
        mounts: by the name of a binding.
        log: takes a line of the container's log.
        dial: opens a connection to a host and a port, where the pod's egress grant lets it. Raises `HostError`.
        tell: has the actor do something, later: an operation, and a value for its message. Raises `HostError` where too
            much waits already; `patient=True`, in a thread of one's own, waits for room.
        begin: runs something in a thread of its own.
        deadline: when the present call has to be over, by the monotonic clock in seconds.
    """

    settings: Mapping[str, str]
    env: Mapping[str, str]
    mounts: Mapping[str, Mount]
    log: Callable[[str], None]
    dial: Callable[[str, int], Link]
    tell: Callable[..., None]
    begin: Callable[[Callable[[], None]], None]
    deadline: Callable[[], float]


class Capability(Protocol):
    """Something that an actor may ask its host for. Made with a `Context`."""

    def call(self, binding: str, operation: str, message: Any) -> Any:
        """Do what an actor asks.

        Args:
            binding: which of several things of this kind is meant; "default" where the actor names none.
            message: what came with it, decoded; None for nothing.

        Returns:
            What is answered: maps (names in camelCase; `messages.both` adds the older spelling), lists, texts, bytes,
            numbers; None for an empty answer.

        Raises:
            ValueError: it cannot be done, or the message is not what was expected; the actor gets the words.
        """
        ...


def others() -> dict[str, Callable[[Context], Capability]]:
    """The capabilities that other distributions announce, by name. One that cannot be imported is refused when used."""
    found: dict[str, Callable[[Context], Capability]] = {}
    for point in entry_points(group=GROUP):
        try:
            found[point.name] = point.load()
        except Exception as error:
            found[point.name] = _broken(point.name, f"{type(error).__name__}: {error}")
    return found


def _broken(name: str, why: str) -> Callable[[Context], Capability]:
    def make(context: Context) -> Capability:
        raise ValueError(f"capability {name} cannot be used: {why}")

    return make
